package roundtrip

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// A tree is what a directory tree has, by clean paths without a slash before them; "." is its root.
type tree map[string]entry

type entry struct {
	what string // all but the time
	time time.Time
}

// readTree reads a tar.
func readTree(r io.Reader) (tree, error) {
	got, same := tree{}, map[string][]string{}
	files := tar.NewReader(r)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		if h.Typeflag == tar.TypeLink {
			first := path.Clean(strings.TrimPrefix(h.Linkname, "/"))
			if _, found := got[first]; !found {
				return nil, fmt.Errorf("%q is a link to %q, which has not come", name, first)
			}
			same[first] = append(same[first], name)
			continue
		}
		e, err := describe(h, files)
		if err != nil {
			return nil, err
		}
		got[name] = e
	}
	for first, others := range same {
		names := append([]string{first}, others...)
		slices.Sort(names)
		e := got[first]
		e.what += fmt.Sprintf(" links %q", names)
		for _, name := range names {
			got[name] = e
		}
	}
	return got, nil
}

// describe says what an entry is.
func describe(h *tar.Header, content io.Reader) (entry, error) {
	what := fmt.Sprintf("%c %04o %d:%d", kindOf(h.Typeflag), h.Mode&0o7777, h.Uid, h.Gid)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		sum := sha256.New()
		if _, err := io.Copy(sum, content); err != nil {
			return entry{}, err
		}
		what += fmt.Sprintf(" %d %x", h.Size, sum.Sum(nil)[:8])
	case tar.TypeSymlink:
		what += fmt.Sprintf(" -> %q", h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		what += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	}
	var attrs []string
	for key, value := range h.PAXRecords {
		if name, found := strings.CutPrefix(key, "SCHILY.xattr."); found {
			attrs = append(attrs, fmt.Sprintf(" %s=%x", name, value))
		}
	}
	slices.Sort(attrs)
	return entry{what + strings.Join(attrs, ""), h.ModTime}, nil
}

func kindOf(flag byte) byte {
	if flag == tar.TypeGNUSparse {
		return tar.TypeReg
	}
	return flag
}

// running is for trees of containers that run: it is without what engines put there.
func running(name string) (skip, skipTime bool) {
	for _, dir := range []string{"dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "run/.containerenv", "run/secrets"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true, true
		}
	}
	return false, slices.Contains([]string{".", "etc", "run"}, name)
}

// whole is for trees that are complete, but for the time of their root.
func whole(name string) (skip, skipTime bool) { return false, name == "." }

// same holds a tree against the one that is wanted.
func (want tree) same(t *testing.T, got tree, but func(name string) (skip, skipTime bool)) {
	t.Helper()
	names := map[string]bool{}
	for name := range want {
		names[name] = true
	}
	for name := range got {
		names[name] = true
	}
	var differ []string
	compared := 0
	for name := range names {
		skip, skipTime := but(name)
		if skip {
			continue
		}
		compared++
		w, wanted := want[name]
		g, found := got[name]
		switch {
		case !found:
			differ = append(differ, fmt.Sprintf("%q is missing: %s", name, w.what))
		case !wanted:
			differ = append(differ, fmt.Sprintf("%q is too much: %s", name, g.what))
		case w.what != g.what:
			differ = append(differ, fmt.Sprintf("%q: want %s\n\t got %s", name, w.what, g.what))
		case !skipTime && !w.time.Equal(g.time):
			differ = append(differ, fmt.Sprintf("%q: want %v, got %v", name, w.time, g.time))
		}
	}
	slices.Sort(differ)
	if len(differ) > 0 {
		t.Errorf("%d differ:\n%s", len(differ), strings.Join(differ[:min(len(differ), 15)], "\n"))
	}
	if compared < 1000 {
		t.Errorf("only %d paths", compared)
	}
}
