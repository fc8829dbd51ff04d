PS4='--> '
set -ex
if ! command -v add-apt-repository >/dev/null; then
apt-get update -qq
(
	{ set +x; } 2>/dev/null
	if ! test -e /usr/sbin/policy-rc.d; then
		printf '#!/bin/sh\n# plash\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
)
DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -qq -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold software-properties-common
fi
for plash_repository in git 'a '\''b'\'' $c'; do add-apt-repository -y "$plash_repository"; done
(
	{ set +x; } 2>/dev/null
	if grep -qsx '# plash' /usr/sbin/policy-rc.d; then
		rm /usr/sbin/policy-rc.d
	fi
	apt-get clean
	rm -rf /var/lib/apt/lists/*
)
