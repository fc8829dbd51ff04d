package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

// TestPackFlat packs an upper directory of one user over layers that have owners.
func TestPackFlat(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	below := Layer{Digest: ingest(t, s, func(w io.Writer) error {
		out := tar.NewWriter(w)
		for _, h := range []tar.Header{
			{Name: "d/", Typeflag: tar.TypeDir, Uid: 1, Gid: 2},
			{Name: "d/copied", Uid: 3, Gid: 4},
			{Name: "d/replaced", Uid: 5, Gid: 6},
			{Name: "d/type", Uid: 7, Gid: 8},
			{Name: "d/reset", Uid: 9, Gid: 10},
			{Name: "d/group", Uid: 11, Gid: 12},
			{Name: "union", Uid: 13, Gid: 14},
		} {
			if err := out.WriteHeader(&h); err != nil {
				return err
			}
		}
		return out.Close()
	})}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("d"), 0o755))
	id := func(n uint32) *uint32 { return &n }
	asked := map[string]Remembered{
		"d/reset": {UID: id(0), GID: id(0)}, "d/group": {GID: id(20)}, "d/replaced": {UID: id(0), GID: id(0)},
		"null": {Device: tarstream.TypeChar, Major: 1, Minor: 3}, "mine": {UID: id(21), GID: id(22)},
	}
	known := map[FileID]Remembered{}
	for _, name := range []string{"d/copied", "d/replaced", "d/reset", "d/group", "union", "union-", "null", "mine", "other", "other-"} {
		must(t, os.WriteFile(at(name), nil, 0o644))
		must(t, os.Chown(at(name), 1234, 1234))
		fileID, err := Identify(unix.AT_FDCWD, at(name))
		must(t, err)
		if r, ok := asked[name]; ok {
			known[fileID] = r
		}
	}
	must(t, os.Symlink("x", at("d/type")))
	for name, mark := range map[string]string{
		"d/copied": "user.overlay.origin", "d/reset": "trusted.overlay.origin", "union": "user.overlay.plash.origin",
	} {
		must(t, unix.Setxattr(at(name), mark, nil, 0))
	}
	flat, err := OpenFlat(context.Background(), s, []Layer{below}, func(id FileID) (Remembered, bool) {
		r, ok := known[id]
		return r, ok
	})
	must(t, err)
	defer func() { must(t, flat.Close()) }()
	got := owners(t, packBytes(t, dir, PackOptions{Upper: true, Flat: flat}))
	want := []string{
		"./ 0:0", "d/ 1:2", "d/copied 3:4", "d/group 11:20", "d/replaced 5:6", "d/reset 0:0", "d/type 0:0",
		"mine 21:22", "null 0:0 1,3", "other 0:0", "other- 0:0", "union 13:14", "union- 13:14",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the layer has\n%s", strings.Join(got, "\n"))
	}
	if uid, gid := flat.OwnerBelow("d/copied", unix.S_IFREG); uid != 3 || gid != 4 {
		t.Errorf("below, d/copied belongs to %d:%d", uid, gid)
	}
}

// owners lists who the entries of a tar belong to, and devices.
func owners(tb testing.TB, b []byte) []string {
	tb.Helper()
	var lines []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(tb, err)
		line := fmt.Sprintf("%s %d:%d", h.Name, h.Uid, h.Gid)
		if h.Typeflag == tar.TypeChar {
			line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
		}
		lines = append(lines, line)
	}
}

// TestPlainCapability turns the capability of a namespace's root into everyone's.
func TestPlainCapability(t *testing.T) {
	v3 := []byte("\x01\x00\x00\x03aaaabbbbccccddddroot")
	if got := plainCapability(v3); string(got) != "\x01\x00\x00\x02aaaabbbbccccdddd" {
		t.Errorf("%q", got)
	}
	if v2 := []byte("\x01\x00\x00\x02aaaabbbbccccdddd"); !bytes.Equal(plainCapability(v2), v2) {
		t.Error("version 2 is changed")
	}
}
