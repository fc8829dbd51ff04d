PS4='--> '
set -ex
yum install -y git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	yum clean all >/dev/null
	rm -rf /var/cache/yum/* /var/cache/dnf/*
)
