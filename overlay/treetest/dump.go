// Package treetest makes random directory trees for tests, the same one for the
// same seed, changes them at random, and dumps a tree as text, so that two
// trees are the same if their dumps are. It is for tests of any package that
// stores, packs or mounts trees, needs root for owners and devices, and does
// not care for hostile directories: it works with joined paths.
package treetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dump describes all of a directory tree: a line for each entry, sorted by
// path, with type and mode, owner, size, modification time in nanoseconds,
// device number, target of a symbolic link, sha256 of content, extended attributes,
// and for an inode that several entries share the path of the first of them.
// What differs from filesystem to filesystem (inode numbers, sizes of
// directories, allocated blocks, link counts) is left out.
func Dump(dir string) (string, error) {
	d := dumper{root: dir, first: map[[2]uint64]string{}}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return d.entry(path)
	})
	if err != nil {
		return "", fmt.Errorf("dump %s: %w", dir, err)
	}
	return d.out.String(), nil
}

type dumper struct {
	root  string
	out   strings.Builder
	first map[[2]uint64]string
}

func (d *dumper) entry(path string) error {
	rel, err := filepath.Rel(d.root, path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	fmt.Fprintf(&d.out, "%q %06o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := hashFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&d.out, " size=%d sha256=%s", st.Size, sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&d.out, " target=%q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&d.out, " rdev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := d.first[key]; ok {
			fmt.Fprintf(&d.out, " link=%q", first)
		} else {
			d.first[key] = rel
		}
	}
	if err := d.xattrs(path); err != nil {
		return err
	}
	d.out.WriteByte('\n')
	return nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func (d *dumper) xattrs(path string) error {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	names := bytes.Split(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0})
	slices.SortFunc(names, bytes.Compare)
	value := make([]byte, 64<<10)
	for _, name := range names {
		if len(name) == 0 || string(name) == "security.selinux" {
			continue
		}
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return &fs.PathError{Op: "getxattr " + string(name), Path: path, Err: err}
		}
		fmt.Fprintf(&d.out, " %s=%q", name, value[:n])
	}
	return nil
}

// Diff shows the lines in which two dumps differ, at most a few; it is empty if
// they are the same.
func Diff(want, got string) string {
	if want == got {
		return ""
	}
	key := func(line string) string {
		quoted, _, _ := strings.Cut(line, "\" ")
		return quoted
	}
	lines := map[string]string{}
	for line := range strings.SplitSeq(want, "\n") {
		lines[key(line)] = line
	}
	var out []string
	for line := range strings.SplitSeq(got, "\n") {
		k := key(line)
		w, ok := lines[k]
		switch {
		case !ok:
			out = append(out, "+ "+line)
		case w != line:
			out = append(out, "- "+w, "+ "+line)
		}
		delete(lines, k)
	}
	for line := range strings.SplitSeq(want, "\n") {
		if _, left := lines[key(line)]; left {
			out = append(out, "- "+line)
		}
	}
	if len(out) > 20 {
		out = append(out[:20], fmt.Sprintf("… %d more", len(out)-20))
	}
	if len(out) == 0 {
		return "the same lines in another order"
	}
	for i, line := range out {
		if len(line) > 400 {
			out[i] = line[:150] + " … " + line[len(line)-250:]
		}
	}
	return strings.Join(out, "\n")
}
