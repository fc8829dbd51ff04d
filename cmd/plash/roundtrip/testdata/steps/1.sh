# What a layer can have.
attr() {
	perl -e '
		my ($path, $name, $value) = ($ARGV[0], $ARGV[1], pack "H*", $ARGV[2]);
		my $setxattr = `uname -m` =~ /x86_64/ ? 188 : 5;
		syscall($setxattr, $path, $name, $value, length $value, 0) == 0 or die "$path: $name: $!\n"
	' "$@"
}
mkdir -p /srv/opaque/inner /srv/empty /srv/gone/deep /srv/kept /srv/file-later /srv/link-later
for name in /srv/opaque/below /srv/opaque/inner/below /srv/gone/deep/file /srv/gone-file /srv/kept/a /srv/kept/b /srv/file-later/x; do
	echo "$name" >"$name"
done
echo dir >/srv/dir-later
echo later >/srv/back-later
echo one >/srv/link-a
ln /srv/link-a /srv/link-b
ln /srv/link-a /srv/kept/link-c
echo owned >/srv/owned
chown 1234:56789 /srv/owned
chown 65534:1 /srv/kept/b
mkdir -m 1777 /srv/sticky
mkdir -m 2770 /srv/group
chgrp 100 /srv/group
cp /bin/true /srv/suid
chown 1:2 /srv/suid
chmod 6755 /srv/suid
cp /bin/true /srv/capable
attr /srv/capable security.capability 0100000200200000000000000000000000000000
echo extra >/srv/extra
attr /srv/extra user.plash 00ff0a61
attr /srv/empty user.of-a-directory 31
ln -s extra /srv/relative
ln -s /srv/nowhere/at/all /srv/dangling
ln -s ../../../../../../etc /srv/up
mkdir "/srv/ñandú Ω" "/srv/two  spaces"
echo name >"/srv/ñandú Ω/日本語 ✓"
echo name >"/srv/two  spaces/-back\\slash 'quoted' \"
	newline"
echo name >"/srv/$(printf 'latin1-\351')"
long=/srv/$(printf '%0100d' 0)
mkdir -p "$long/$long"
echo name >"$long/$long/$(printf '%0200d' 1)"
mkfifo -m 622 /srv/fifo
mknod -m 640 /srv/null c 1 3
: >/srv/no-bytes
echo dated >/srv/dated
touch -d '2001-02-03 04:05:06.789012345 UTC' /srv/dated
touch -h -d '1990-01-01 UTC' /srv/dangling
touch -d '2001-02-03 04:05:06 UTC' /srv/empty
truncate -s 3000000 /srv/sparse
echo end >>/srv/sparse
