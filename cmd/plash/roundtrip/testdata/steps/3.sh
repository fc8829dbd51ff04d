# What comes back, a name less of a file of several, and an entrypoint.
echo back >/srv/back-later
rm /srv/link-a
ln /srv/kept/link-c /srv/link-e
ln /srv/opaque/above /srv/above-too
rm -r /srv/opaque
mkdir -p /srv/opaque/inner
echo third >/srv/opaque/inner/third
mkdir /srv/gone
mv /srv/dir-later /srv/dir-renamed
perl -e '$x = 1; for (1 .. 6000) { $x = ($x * 1103515245 + 12345) % 2147483648; print pack("V", $x) x 512 }' >/srv/large
cat >/srv/entry <<'END'
#!/bin/sh
[ "${1-}" != exec ] || { shift; exec "$@"; }
echo entry "$@"
END
chmod 755 /srv/entry
