package union

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestShortBlob cuts off the blob that a file lies in: who reads the file gets an error, and neither
// zeros nor a file that ends early.
func TestShortBlob(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		must(t, os.WriteFile(filepath.Join(lower, "file"), bytes.Repeat([]byte("content "), 32<<10), 0o644))
		m := newUnion(t, lower, o)
		blob := m.store.BlobPath(m.layers[0])
		must(t, os.Chmod(blob, 0o644))
		must(t, os.Truncate(blob, 100_000))
		if b, err := os.ReadFile(m.at("file")); !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v, after %d bytes", err, len(b))
		}
		if err := os.Chmod(m.at("file"), 0o600); !errors.Is(err, unix.EIO) {
			t.Errorf("copy up: %v", err)
		}
	})
}

// TestRenameAfterFull renames a name of a file that was copied up when there was no room for all of its
// names: the file gets the one that it lacks.
func TestRenameAfterFull(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		must(t, errors.Join(os.Mkdir(filepath.Join(lower, "a"), 0o755), os.Mkdir(filepath.Join(lower, "b"), 0o755)))
		must(t, os.WriteFile(filepath.Join(lower, "a/file"), []byte("content"), 0o644))
		must(t, os.Link(filepath.Join(lower, "a/file"), filepath.Join(lower, "b/file")))
		m := newUnion(t, lower, o)
		m.unmount()
		base := t.TempDir()
		must(t, unix.Mount("tmpfs", base, "tmpfs", 0, "nr_inodes=64,mode=755"))
		t.Cleanup(func() { must(t, unix.Unmount(base, 0)) })
		m.upper, m.work = filepath.Join(base, "upper"), filepath.Join(base, "work")
		must(t, errors.Join(os.Mkdir(m.upper, 0o755), os.Mkdir(m.work, 0o755)))
		m.mount()
		t.Cleanup(m.unmount)
		// One of both directories is there, and room for the file, but not for the other directory.
		must(t, os.Chmod(m.at("a"), 0o755))
		must(t, errors.Join(os.WriteFile(m.at("room"), nil, 0o644), os.Mkdir(m.at("full"), 0o755)))
		for i := 0; ; i++ {
			err := os.Mkdir(filepath.Join(base, "upper/full", string(rune('a'+i))), 0o755)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			must(t, err)
		}
		full, err := os.ReadDir(filepath.Join(base, "upper/full"))
		must(t, err)
		for placed := 0; placed == 0; full = full[1:] {
			must(t, os.Remove(filepath.Join(base, "upper/full", full[0].Name())))
			if err := os.Chmod(m.at("a/file"), 0o600); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("copying up: %v", err)
			}
			in, err := os.ReadDir(filepath.Join(base, "upper/a"))
			must(t, err)
			placed = len(in)
		}
		for _, e := range full {
			must(t, os.Remove(filepath.Join(base, "upper/full", e.Name())))
		}
		must(t, os.Rename(m.at("b/file"), m.at("b/new")))
		b, err := os.ReadFile(m.at("b/new"))
		if err != nil || string(b) != "content" {
			t.Errorf("moved: %q, %v", b, err)
		}
		if _, err := os.Lstat(m.at("b/file")); !errors.Is(err, unix.ENOENT) {
			t.Errorf("the old name: %v", err)
		}
		old, err := os.Stat(m.at("a/file"))
		must(t, err)
		moved, err := os.Stat(m.at("b/new"))
		must(t, err)
		if !os.SameFile(old, moved) {
			t.Error("the file's names are two files now")
		}
	})
}
