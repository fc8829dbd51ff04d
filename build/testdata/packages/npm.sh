PS4='--> '
set -ex
npm install -g --no-audit --no-fund --no-update-notifier --cache=/tmp/.plash-npm git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	rm -rf /tmp/.plash-npm
)
