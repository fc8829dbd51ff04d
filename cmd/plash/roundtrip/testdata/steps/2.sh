# What a layer can take away, and change, of the one below.
rm /srv/gone-file /srv/kept/a /srv/back-later
rm -r /srv/gone
rm -r /srv/opaque
mkdir /srv/opaque
echo above >/srv/opaque/above
rm -r /srv/file-later /srv/link-later
echo file >/srv/file-later
ln -s kept /srv/link-later
rm /srv/dir-later
mkdir /srv/dir-later
echo in >/srv/dir-later/in
ln /srv/link-b /srv/link-d
chmod 600 /srv/owned
chmod g+w /srv/kept
mv /srv/capable /srv/capable-moved
ln /srv/suid /srv/suid-too
echo more >>/srv/extra
mkdir -m 700 /srv/other
ln /srv/other /srv/nothing 2>/dev/null || ln -s other /srv/nothing
