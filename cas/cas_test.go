package cas

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInit makes stores, and refuses directories that are something else.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNoStore) {
		t.Errorf("open an empty directory: %v", err)
	}
	// What an Init that was killed leaves, at any moment.
	must(t, os.MkdirAll(filepath.Join(dir, "index/sha256"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "scratch"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "scratch", (&Store{}).scratchName("file")), nil, 0o644))
	must(t, Init(dir))
	must(t, Init(dir))
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "version"), []byte("plash-store 99\n"), 0o644))
	if err := Init(dir); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "plash-store 99") {
		t.Errorf("a store of another version: %v", err)
	}

	for _, own := range []string{"mine", "cache/mine", "blobs/sha256/mine", "index/page.html", "scratch/mine"} {
		dir := t.TempDir()
		path := filepath.Join(dir, own)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, 0o644))
		if err := Init(dir); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a directory with %s: %v", own, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestReadOnly reads from a store that cannot be written.
func TestReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	s := newStore(t)
	d := ingest(t, s, archive(t, member{name: "f", body: "x"}))
	unlock, err := s.LockShared(context.Background())
	must(t, err)
	unlock()
	must(t, unix.Mount(s.Dir(), s.Dir(), "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(s.Dir(), unix.MNT_DETACH)) }()
	must(t, unix.Mount("", s.Dir(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	unlock, err = s.LockShared(context.Background())
	must(t, err)
	unlock()
	if got := viewTree(t, s, d); !slices.Equal(got, []string{"", "/f=x"}) {
		t.Errorf("%q", got)
	}
	must(t, s.Reclaim())
	if _, err := s.MountPoint(); err != nil {
		t.Error(err)
	}
}
