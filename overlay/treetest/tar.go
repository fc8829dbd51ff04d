package treetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Names that delete in layers (OCI image specification, layer.md, "Whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// WriteTar makes a layer of whiteouts, and of entries of a directory: all of it
// without a list of paths, else just these. GNU tar does it, so that it is no code of
// ours on both sides.
func WriteTar(tb testing.TB, name, dir string, whiteouts []string, paths ...string) {
	tb.Helper()
	out, err := os.Create(name)
	must(tb, err)
	w := tar.NewWriter(out)
	for _, p := range whiteouts {
		must(tb, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: 0o600, Format: tar.FormatPAX}))
	}
	must(tb, w.Flush()) // no end: the rest follows
	args := []string{
		"--xattrs", "--xattrs-include=*", "--acls", "--format=pax", "--sparse", "--numeric-owner",
		"--pax-option=delete=atime,delete=ctime", "-c", "-C", dir,
	}
	if len(paths) == 0 {
		args = append(args, ".")
	} else {
		args = append(args, "--no-recursion", "--null", "--verbatim-files-from", "-T", "-")
	}
	cmd := exec.Command("tar", args...)
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00"))
	cmd.Stdout = out
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		tb.Fatalf("make layers: tar: %v: %s", err, said.Bytes())
	}
	must(tb, out.Close())
}

// Apply changes a directory as a layer says, with GNU tar.
func Apply(tb testing.TB, dir, layer string) {
	tb.Helper()
	f, err := os.Open(layer)
	must(tb, err)
	defer f.Close()
	// Whiteouts are about the layers below, wherever in the tar they are.
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(tb, err)
		parent, name := path.Split(h.Name)
		if name == opaque {
			entries, err := os.ReadDir(filepath.Join(dir, parent))
			if !errors.Is(err, fs.ErrNotExist) { // deleted already, from above
				must(tb, err)
			}
			for _, e := range entries {
				must(tb, os.RemoveAll(filepath.Join(dir, parent, e.Name())))
			}
			continue
		}
		if gone, ok := strings.CutPrefix(name, whiteout); ok {
			must(tb, os.RemoveAll(filepath.Join(dir, parent, gone)))
		} else if fi, err := os.Lstat(filepath.Join(dir, h.Name)); err == nil && fi.IsDir() != (h.Typeflag == tar.TypeDir) {
			must(tb, os.RemoveAll(filepath.Join(dir, h.Name)))
		}
	}
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--exclude=.wh.*",
		"-p", "-x", "-C", dir, "-f", layer)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("make layers: tar: %v: %s", err, out)
	}
}

// writeDiff makes the layer that turns one tree into another. Every seventh directory
// that is in both is made opaque, with all that is in it in the layer.
func writeDiff(tb testing.TB, name, from, to string) {
	tb.Helper()
	before, after := lines(tb, from), lines(tb, to)
	links := inodes(tb, to)
	var whiteouts []string
	list := map[string]bool{}
	include := func(p string) {
		for _, other := range links[p] {
			list[other] = true
		}
		for ; ; p = path.Dir(p) {
			list[p] = true
			if p == "." {
				return
			}
		}
	}
	n := 0
	for p, line := range after {
		old, ok := before[p]
		if !ok || old.text != line.text || old.dir != line.dir {
			include(p)
		}
		if !ok || !line.dir || !old.dir || p == "." {
			continue
		}
		if n++; n%7 == 0 {
			whiteouts = append(whiteouts, p+"/"+opaque)
			for q := range after {
				if strings.HasPrefix(q, p+"/") {
					include(q)
				}
			}
			include(p)
		}
	}
	for p := range before {
		parent := path.Dir(p)
		if _, stays := after[p]; !stays && before[parent].dir && after[parent].dir {
			whiteouts = append(whiteouts, path.Join(parent, whiteout+path.Base(p)))
			include(parent)
		}
	}
	slices.Sort(whiteouts)
	paths := make([]string, 0, len(list))
	for p := range list {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	WriteTar(tb, name, to, whiteouts, paths...)
}

type treeLine struct {
	text string
	dir  bool
}

// lines are a dump's lines under their paths.
func lines(tb testing.TB, dir string) map[string]treeLine {
	tb.Helper()
	dump, err := Dump(dir)
	must(tb, err)
	all := map[string]treeLine{}
	for line := range strings.Lines(dump) {
		quoted, err := strconv.QuotedPrefix(line)
		must(tb, err)
		name, err := strconv.Unquote(quoted)
		must(tb, err)
		text := line[len(quoted):]
		all[name] = treeLine{text, strings.HasPrefix(text, " 04")}
	}
	return all
}

// inodes gives for every path of a file with several names all of them.
func inodes(tb testing.TB, dir string) map[string][]string {
	tb.Helper()
	names := map[uint64][]string{}
	all := map[string][]string{}
	for p, line := range lines(tb, dir) {
		var st unix.Stat_t
		must(tb, unix.Lstat(filepath.Join(dir, p), &st))
		if !line.dir && st.Nlink > 1 {
			names[st.Ino] = append(names[st.Ino], p)
		}
	}
	for _, group := range names {
		for _, p := range group {
			all[p] = group
		}
	}
	return all
}
