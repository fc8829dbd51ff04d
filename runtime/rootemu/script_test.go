package rootemu

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s", p)
		}
	}
}

func TestChown(t *testing.T) {
	c := newContainer(t, tar.Header{Name: "etc/old", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8})
	c.sh(t, `
cd /tmp
touch a; chown 10:20 a; mv a b
touch c; chown 33 c; chgrp 34 c
touch d; chown 1:2 d; chown 3 d; ln d e
ln -s b s; chown -h 5:6 s
mkdir m; chown 40:40 m
touch n
mknod null c 1 3; mknod -m 600 disk b 8 1; mknod fifo p; mv disk disk2; ln null null2
chown 100 /etc/old
touch gone; chown 1 gone; rm gone
chown 5 n; chown 0 n
`)
	c.wantLayer(t,
		"etc/ 5 755 0:0", "etc/old 0 755 100:8 0",
		"tmp/ 5 755 0:0", "tmp/b 0 644 10:20 0", "tmp/c 0 644 33:34 0", "tmp/d 0 644 3:2 0", "tmp/disk2 4 600 0:0 8,1",
		"tmp/e 1 644 3:2 -> tmp/d", "tmp/fifo 6 644 0:0", "tmp/m/ 5 755 40:40", "tmp/n 0 644 0:0 0",
		"tmp/null 3 644 0:0 1,3", "tmp/null2 1 644 0:0 -> tmp/null", "tmp/s 2 777 5:6 -> b")
}

// TestOwnersBelow changes files that belong to others in the layers below, where the container
// shows them as root's.
func TestOwnersBelow(t *testing.T) {
	file := func(name string, mode int64, uid, gid int) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Uid: uid, Gid: gid}
	}
	c := newContainer(t,
		tar.Header{Name: "var/lib/x", Typeflag: tar.TypeDir, Mode: 0o2755, Uid: 11, Gid: 12},
		file("var/lib/x/appended", 0o640, 1, 2), file("var/lib/x/chmod", 0o640, 3, 4), file("var/lib/x/rewritten", 0o640, 0, 42),
		file("var/lib/x/successor", 0o640, 5, 6), file("var/lib/x/root", 0o640, 7, 8), file("var/lib/x/group", 0o640, 9, 10),
		file("var/lib/x/dir", 0o640, 13, 14), file("var/lib/x/new", 0o640, 15, 16), file("var/lib/x/deleted", 0o640, 15, 16),
		tar.Header{Name: "var/lib/x/sym", Typeflag: tar.TypeSymlink, Linkname: "a", Uid: 17, Gid: 18},
	)
	c.sh(t, `
cd /var/lib/x
echo >>appended
chmod 600 chmod
sed -i s/x/y/ rewritten
cp -p successor successor+; mv successor+ successor
chown root:root root
chgrp 50 group
rm dir; mkdir dir
rm new; touch new; chown 60:61 new
rm deleted
ln -sfn b sym
touch mine
`)
	c.wantLayer(t,
		"var/ 5 755 0:0", "var/lib/ 5 755 0:0", "var/lib/x/ 5 2755 11:12",
		"var/lib/x/appended 0 640 1:2 1", "var/lib/x/chmod 0 600 3:4 0", "var/lib/x/.wh.deleted 0 0 0:0 0",
		"var/lib/x/dir/ 5 2755 0:0", "var/lib/x/dir/.wh..wh..opq 0 0 0:0 0",
		"var/lib/x/group 0 640 9:50 0", "var/lib/x/mine 0 644 0:0 0", "var/lib/x/new 0 644 60:61 0",
		"var/lib/x/rewritten 0 640 0:42 0", "var/lib/x/root 0 640 0:0 0", "var/lib/x/successor 0 640 5:6 0",
		"var/lib/x/sym 2 777 17:18 -> b")
}

// TestAttributesBelow changes files that have attributes in the layers below which the container
// does not show.
func TestAttributesBelow(t *testing.T) {
	needs(t, "setfacl")
	attrs := func(name, acl string) map[string]string {
		return map[string]string{"SCHILY.xattr." + name: acl}
	}
	const (
		cap = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\x21\x00\x00\x00" +
			"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	)
	file := func(name string, xattrs map[string]string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o664, PAXRecords: xattrs, Format: tar.FormatPAX}
	}
	c := newContainer(t,
		tar.Header{
			Name: "var/d", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: attrs("system.posix_acl_default", acl),
			Format: tar.FormatPAX,
		},
		file("var/d/chmod", attrs("security.capability", cap)), file("var/d/write", attrs("security.capability", cap)),
		file("var/d/chown", attrs("security.capability", cap)), file("var/d/acl", attrs("system.posix_acl_access", acl)),
		file("var/d/none", attrs("system.posix_acl_access", acl)))
	c.sh(t, `cd /var/d; chmod 755 chmod; echo >>write; chown 3 chown; chmod 600 acl; setfacl -m u:0:r none; setfacl -b none`)
	c.wantLayer(t, "var/ 5 755 0:0", "var/d/ 5 755 0:0 system.posix_acl_default="+fmt.Sprintf("%x", acl),
		"var/d/acl 0 600 0:0 0 system.posix_acl_access="+
			"02000000"+"01000600ffffffff"+"0200060021000000"+"04000400ffffffff"+"10000000ffffffff"+"20000000ffffffff",
		"var/d/chmod 0 755 0:0 0 security.capability="+fmt.Sprintf("%x", cap),
		"var/d/chown 0 664 3:0 0", "var/d/none 0 664 0:0 0", "var/d/write 0 664 0:0 1")
}

// TestInodeAgain removes a file that was given away, and makes another that gets its inode.
func TestInodeAgain(t *testing.T) {
	c := newContainer(t)
	out := c.sh(t, `
cd /tmp
hits=0
for n in $(seq 200); do
  echo x >a; chown 5:5 a; i=$(stat -c %i a); rm a
  echo x >a; [ $i != $(stat -c %i a) ] || hits=$((hits+1))
  [ $hits -lt 5 ] || break
  mv a keep$n
done
echo $hits`)
	if strings.TrimSpace(out) == "0" {
		t.Skip("this filesystem does not use inode numbers again")
	}
	for _, l := range c.layer(t) {
		if !strings.Contains(l, " 0:0") {
			t.Error(l)
		}
	}
}

func TestTar(t *testing.T) {
	needs(t, "tar")
	headers := []tar.Header{
		{Name: "x/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 1, Gid: 2},
		{Name: "x/d/", Typeflag: tar.TypeDir, Mode: 0o2775, Uid: 3, Gid: 4},
		{Name: "x/d/dev", Typeflag: tar.TypeChar, Mode: 0o620, Uid: 5, Gid: 6, Devmajor: 4, Devminor: 64},
		{Name: "x/d/disk", Typeflag: tar.TypeBlock, Mode: 0o660, Uid: 0, Gid: 6, Devmajor: 8, Devminor: 17},
		{Name: "x/d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600, Uid: 7, Gid: 8},
		{Name: "x/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 9, Gid: 10},
		{Name: "x/large", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 3000000000, Gid: 4000000000, Format: tar.FormatPAX},
		{Name: "x/link", Typeflag: tar.TypeLink, Linkname: "x/f", Mode: 0o4755, Uid: 9, Gid: 10},
		{Name: "x/sym", Typeflag: tar.TypeSymlink, Linkname: "f", Mode: 0o777, Uid: 11, Gid: 12},
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		must(t, w.WriteHeader(&h))
	}
	must(t, w.Close())
	c := newContainer(t)
	in := filepath.Join(c.Lower, "in.tar")
	must(t, os.WriteFile(in, b.Bytes(), 0o644))
	c.sh(t, "tar -C / -xpf /in.tar --same-owner")
	got := c.layer(t)
	for i, l := range got {
		got[i] = strings.TrimSuffix(l, " <-")
	}
	if want := list(t, &b); !slices.Equal(got, want) {
		t.Errorf("the layer is\n%s\nand the tar\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPackage(t *testing.T) {
	needs(t, "dpkg-deb", "dpkg")
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a package")
	}
	dir := t.TempDir()
	script := `
cd "$1"
mkdir -p p/DEBIAN p/opt/x
printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n' >p/DEBIAN/control
printf '#!/bin/sh\nset -e\nchown 70:71 /opt/x/late\nchmod 4755 /opt/x/late\n' >p/DEBIAN/postinst
chmod 755 p p/DEBIAN p/opt p/opt/x p/DEBIAN/postinst
touch p/opt/x/f p/opt/x/late; ln -s f p/opt/x/s
chmod 644 p/opt/x/f p/opt/x/late
chown 60:61 p/opt/x/f; chown 62:63 p/opt/x; chown -h 64:65 p/opt/x/s
dpkg-deb -Zgzip -b p x.deb`
	out, err := exec.Command("sh", "-ec", script, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := newContainer(t)
	must(t, os.Rename(dir+"/x.deb", c.Lower+"/x.deb"))
	c.sh(t, `mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers
touch /var/lib/dpkg/status /var/lib/dpkg/available
dpkg -i /x.deb >/tmp/log || { cat /tmp/log; exit 1; }`)
	want := []string{
		"opt/ 5 755 0:0", "opt/x/ 5 755 62:63", "opt/x/f 0 644 60:61 0", "opt/x/late 0 4755 70:71 0", "opt/x/s 2 777 64:65 -> f",
	}
	got := slices.DeleteFunc(c.layer(t), func(l string) bool { return !strings.HasPrefix(l, "opt/") || strings.Contains(l, ".wh.") })
	if !slices.Equal(got, want) {
		t.Errorf("the layer has\n%s", strings.Join(got, "\n"))
	}
}

func TestAttributes(t *testing.T) {
	needs(t, "setcap", "setfacl")
	c := newContainer(t)
	out := c.sh(t, `
cd /tmp
touch cap acl plain; chmod 644 acl
setcap cap_net_raw+ep cap
getcap cap
setfacl -m u:33:rw acl
chmod 600 acl
touch twice; setcap cap_net_raw+ep twice; chown 3 twice
setfacl -m u:33:rw plain; setfacl -b plain
setfacl -d -m g:44:rx .
`)
	if out != "cap cap_net_raw=ep\n" {
		t.Errorf("getcap says %q", out)
	}
	const (
		cap  = "0100000200200000000000000000000000000000"
		acl  = "02000000" + "01000600ffffffff" + "0200060021000000" + "04000400ffffffff" + "10000000ffffffff" + "20000000ffffffff"
		deft = "02000000" + "01000700ffffffff" + "04000500ffffffff" + "080005002c000000" + "10000500ffffffff" + "20000500ffffffff"
	)
	c.wantLayer(t, "tmp/ 5 755 0:0 system.posix_acl_default="+deft, "tmp/acl 0 600 0:0 0 system.posix_acl_access="+acl,
		"tmp/cap 0 644 0:0 0 security.capability="+cap, "tmp/plain 0 644 0:0 0", "tmp/twice 0 644 3:0 0")
}

// TestBecome has programs become users.
func TestBecome(t *testing.T) {
	for _, argv := range []string{
		"su -s /bin/sh www-data -c",
		"runuser -u www-data -- sh -c",
		"setpriv --reuid=33 --regid=33 --clear-groups sh -c",
		"setpriv --reuid=33 --regid=33 --init-groups --inh-caps=-all sh -c",
		"chroot --userspec=33:33 / sh -c",
	} {
		program, _, _ := strings.Cut(argv, " ")
		needs(t, program)
		c := newContainer(t)
		out := c.sh(t, "id -u; "+argv+` 'ulimit -R 1000000000 2>/dev/null; id -u; id -g; (sleep 0.1; id -u) & wait; sh -c "(sleep 0.2; id -u) &"; sleep 0.3; perl -e "print \$<, \"\n\""'; id -u`)
		if out != "0\n33\n33\n33\n33\n33\n0\n" {
			t.Errorf("%s: %q", argv, out)
		}
		groups := "33\n"
		if out := c.sh(t, argv+` 'id -G'`); out != groups {
			t.Errorf("%s: groups %q", argv, out)
		}
	}
}

// TestUserFiles has a program make and look at files that has become a user.
func TestUserFiles(t *testing.T) {
	needs(t, "runuser", "git", "perl")
	c := newContainer(t, tar.Header{Name: "var/old", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 7, Gid: 8})
	out := c.sh(t, `
mkdir /tmp/w /tmp/g; chown 33:33 /tmp/w; chown 0:44 /tmp/g; chmod 2775 /tmp/g; mknod /tmp/null c 1 3
runuser -u www-data -- sh -ec '
cd /tmp/w
umask 027
echo a >a; echo b >>a; (set -C; echo x >excl); mkdir d; ln -s a s; touch ../g/in; echo c >d/c; cat a
perl -e "open(F, q(<), q(a)) or die; @s = stat(F); print qq(\$s[4] \$s[5]\n)"
stat -c "%n %u:%g %F" a d s d/c ../g/in ../null /var/old /var
perl -e "mkdir(q(a)) and die; print \$!+0, qq(\n); sysopen(F, q(nowhere/x), 0101) and die; print \$!+0, qq(\n)"
export HOME=/tmp/w; git init -q r; cd r; git config user.email x; git config user.name x; echo x >x; git add x; git commit -qm x; git status -s
'
cd /tmp/w; touch roots; rm -r r; stat -c %u a; [ -z "$(find . -user 33)" ]`)
	want := `a
b
33 33
a 33:33 regular file
d 33:33 directory
s 33:33 symbolic link
d/c 33:33 regular file
../g/in 33:44 regular empty file
../null 0:0 character special file
/var/old 7:8 regular empty file
/var 0:0 directory
17
2
0
`
	if out != want {
		t.Errorf("it prints\n%s", out)
	}
	c.wantLayer(t, "tmp/ 5 755 0:0", "tmp/g/ 5 2775 0:44", "tmp/g/in 0 640 33:44 0", "tmp/null 3 644 0:0 1,3",
		"tmp/w/ 5 755 33:33", "tmp/w/a 0 640 33:33 4", "tmp/w/d/ 5 750 33:33", "tmp/w/d/c 0 640 33:33 2",
		"tmp/w/excl 0 640 33:33 2", "tmp/w/roots 0 644 0:0 0", "tmp/w/s 2 777 33:33 -> a")
}

// TestStatic runs a program without a C library's shared objects.
func TestStatic(t *testing.T) {
	needs(t, "busybox")
	c := newContainer(t)
	c.sh(t, `cd /tmp; touch a; busybox chown 1:2 a; busybox mknod n c 1 3`)
	c.wantLayer(t, "tmp/ 5 755 0:0", "tmp/a 0 644 1:2 0", "tmp/n 3 644 0:0 1,3")
}

// TestKilled kills programs while their calls are answered.
func TestKilled(t *testing.T) {
	c := newContainer(t)
	c.run(t, "/bin/bash", "-ec", `
touch /tmp/f /tmp/g
for n in $(seq 40); do
  (exec -a `+callsName+` /self forever) & p=$!
  sleep 0.0$((n % 5))
  kill -9 $p; wait $p || true
done
chown 1:2 /tmp/g`)
	lines := c.layer(t)
	if len(lines) != 3 || lines[2] != "tmp/g 0 644 1:2 0" {
		t.Errorf("%q", lines)
	}
}

// TestBlind makes calls succeed where nothing can be remembered.
func TestBlind(t *testing.T) {
	c := newContainer(t)
	c.Blind = true
	c.sh(t, `cd /tmp; touch a; chown 1:2 a; chown -h 3 a; mknod n c 1 3; [ ! -e n ]; mknod p p; setpriv --reuid 3 --clear-groups true`)
	c.wantLayer(t, "tmp/ 5 755 0:0", "tmp/a 0 644 0:0 0", "tmp/p 6 644 0:0")
}
