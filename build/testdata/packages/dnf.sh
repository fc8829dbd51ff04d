PS4='--> '
set -ex
dnf install -y git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	dnf clean all >/dev/null
	rm -rf /var/cache/dnf/* /var/cache/libdnf5/*
)
