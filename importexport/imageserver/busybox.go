package imageserver

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// busyboxPath is where the Debian package busybox-static has it, and the
// variable of the environment that names another.
const (
	busyboxPath = "/bin/busybox"
	busyboxEnv  = "PLASH_TEST_BUSYBOX"
)

// standInAPK takes the place of Alpine's package manager. It installs nothing:
// "add" makes a command of each package's name that prints a version.
const standInAPK = `#!/bin/sh
# A stand-in for apk, of the test image: no package is installed. "apk add NAME"
# makes a command /usr/bin/NAME that prints "NAME version ...".
set -e
command=
packages=
for arg; do
	case $arg in
	-*) ;;
	*) if [ -z "$command" ]; then command=$arg; else packages="$packages $arg"; fi ;;
	esac
done
case $command in
update)
	while read -r repository; do
		echo "fetch $repository/x86_64/APKINDEX.tar.gz"
	done < /etc/apk/repositories
	echo "OK: 1 distinct packages available"
	;;
add)
	set -- $packages
	n=0
	for name; do
		n=$((n + 1))
		version=1.0
		[ "$name" != git ] || version=2.15.0
		echo "($n/$#) Installing $name ($version-r1)"
		printf '#!/bin/sh\necho "%s version %s"\n' "$name" "$version" > "/usr/bin/$name"
		chmod 755 "/usr/bin/$name"
		if [ "$name" = docker ]; then
			printf '#!/bin/sh\necho "${0##*/}: $*"\necho "host: $DOCKER_HOST"\n' | tee /usr/bin/docker > /usr/bin/dockerd
			chmod 755 /usr/bin/dockerd
		fi
		echo "$name" >> /etc/apk/world
	done
	echo "OK: 21 MiB in 22 packages"
	;;
*)
	echo "apk (stand-in): only update and add are known" >&2
	exit 1
	;;
esac
`

// busyboxFiles are the files of the small image besides busybox and its links.
// A name that ends with a slash is a directory.
var busyboxFiles = []struct {
	name string
	mode int64
	text string
}{
	{"bin/", 0o755, ""},
	{"dev/", 0o755, ""},
	{"etc/", 0o755, ""},
	{"etc/alpine-release", 0o644, "3.20.0\n"},
	{"etc/apk/", 0o755, ""},
	{"etc/apk/repositories", 0o644, "http://dl-cdn.alpinelinux.org/alpine/v3.20/main\n"},
	{"etc/apk/world", 0o644, "busybox\n"},
	{"etc/group", 0o644, "root:x:0:root\nnogroup:x:65534:\n"},
	{"etc/hostname", 0o644, "localhost\n"},
	{"etc/hosts", 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost\n"},
	{"etc/os-release", 0o644, "NAME=\"Alpine Linux (stand-in of busybox)\"\nID=alpine\nVERSION_ID=3.20.0\n"},
	{"etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
	{"etc/profile", 0o644, "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\numask 022\n"},
	{"etc/resolv.conf", 0o644, ""},
	{"etc/shadow", 0o640, "root:*::0:::::\nnobody:!::0:::::\n"},
	{"home/", 0o755, ""},
	{"lib/", 0o755, ""},
	{"mnt/", 0o755, ""},
	{"opt/", 0o755, ""},
	{"proc/", 0o555, ""},
	{"root/", 0o700, ""},
	{"run/", 0o755, ""},
	{"sbin/", 0o755, ""},
	{"sbin/apk", 0o755, standInAPK},
	{"srv/", 0o755, ""},
	{"sys/", 0o555, ""},
	{"tmp/", 0o1777, ""},
	{"usr/", 0o755, ""},
	{"usr/bin/", 0o755, ""},
	{"usr/lib/", 0o755, ""},
	{"usr/local/", 0o755, ""},
	{"usr/local/bin/", 0o755, ""},
	{"usr/sbin/", 0o755, ""},
	{"var/", 0o755, ""},
	{"var/cache/", 0o755, ""},
	{"var/log/", 0o755, ""},
	{"var/tmp/", 0o1777, ""},
}

// BusyboxRoot makes the tar of a small root filesystem that takes the place of
// Alpine's: a busybox with a link for each of its commands, the usual files
// below /etc, and a stand-in for apk. It is made from the static busybox of
// this machine (PLASH_TEST_BUSYBOX, or /bin/busybox of Debian's
// busybox-static), and the same each time.
func BusyboxRoot() ([]byte, error) {
	program := os.Getenv(busyboxEnv)
	if program == "" {
		program = busyboxPath
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("busybox image: %w (the Debian package busybox-static has it)", err)
	}
	applets, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox image: %s --list-full: %w", program, err)
	}
	b := &tarBuilder{made: map[string]bool{}}
	b.tw = tar.NewWriter(&b.buf)
	b.add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, "")
	for _, f := range busyboxFiles {
		if strings.HasSuffix(f.name, "/") {
			b.add(tar.Header{Typeflag: tar.TypeDir, Name: f.name, Mode: f.mode}, "")
		} else {
			b.add(tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode}, f.text)
		}
	}
	b.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(binary))
	links := strings.Fields(string(applets))
	slices.Sort(links)
	for _, link := range links {
		if b.made[path.Dir(link)+"/"] && !b.made[link] {
			b.add(tar.Header{Typeflag: tar.TypeSymlink, Name: link, Linkname: "/bin/busybox", Mode: 0o777}, "")
		}
	}
	if !b.made["bin/sh"] {
		b.err = errors.Join(b.err, fmt.Errorf("%s has no shell", program))
	}
	if err := errors.Join(b.err, b.tw.Close()); err != nil {
		return nil, fmt.Errorf("busybox image: %w", err)
	}
	return b.buf.Bytes(), nil
}

// tarBuilder writes a tar, remembers the first error and what there is.
type tarBuilder struct {
	buf  bytes.Buffer
	tw   *tar.Writer
	made map[string]bool
	err  error
}

func (b *tarBuilder) add(h tar.Header, content string) {
	if b.err != nil {
		return
	}
	h.ModTime, h.Size = modified, int64(len(content))
	b.made[h.Name] = true
	if b.err = b.tw.WriteHeader(&h); b.err == nil {
		_, b.err = io.WriteString(b.tw, content)
	}
}

// XZ compresses with xz, at its quickest.
func XZ(data []byte) ([]byte, error) {
	var out bytes.Buffer
	if program, err := exec.LookPath("xz"); err == nil {
		cmd := exec.Command(program, "-0", "-T0", "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &out
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		return out.Bytes(), nil
	}
	w, err := xz.NewWriter(&out)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return out.Bytes(), nil
}

// BusyboxImage is [BusyboxRoot] as the image "alpine:3.20".
func BusyboxImage() (Image, error) {
	root, err := BusyboxRoot()
	if err != nil {
		return Image{}, err
	}
	data, err := XZ(root)
	return Image{Dist: "alpine", Release: "3.20", Data: data}, err
}
