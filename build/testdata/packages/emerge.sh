PS4='--> '
set -ex
if ! test -e /var/db/repos/gentoo/profiles && ! test -e /usr/portage/profiles; then
	emerge-webrsync --quiet
	touch /var/db/repos/gentoo/.plash
fi
emerge --ask=n --quiet-build=y --nospinner git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	if test -e /var/db/repos/gentoo/.plash; then
		rm -rf /var/db/repos/gentoo/* /var/db/repos/gentoo/.[!.]*
	fi
	rm -rf /var/cache/distfiles/* /usr/portage/distfiles/* /var/tmp/portage/*
)
