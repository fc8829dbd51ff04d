PS4='--> '
set -ex
pacman -Syu --noconfirm --needed git 'a '\''b'\'' $c'
(
	{ set +x; } 2>/dev/null
	rm -rf /var/cache/pacman/pkg/* /var/lib/pacman/sync/*
)
