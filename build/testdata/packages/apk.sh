PS4='--> '
set -ex
apk update
apk add git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	rm -rf /var/cache/apk/*
)
