package union

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRenameFails has a rename over an emptied directory fail: the directory is what it
// was before.
func TestRenameFails(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(lower, "to"), 0o755))
		must(t, os.WriteFile(filepath.Join(lower, "to/file"), nil, 0o644))
		m := newUnion(t, lower, o)
		must(t, errors.Join(
			os.Remove(m.at("to/file")), os.Chmod(m.at("to"), 0o751), os.Chown(m.at("to"), 7, 8),
			os.MkdirAll(m.at("from/dir/new"), 0o755),
		))
		before := dumpOld(t, m.dir)
		immutable := func(flags int) {
			f, err := os.Open(filepath.Join(m.upper, "from"))
			must(t, err)
			err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
			must(t, f.Close())
			if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("no immutable directories here")
			}
			must(t, err)
		}
		const fsImmutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
		immutable(fsImmutable)
		err := unix.Rename(m.at("from/dir"), m.at("to"))
		immutable(0)
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("rename out of an immutable directory: %v", err)
		}
		same(t, "the tree", before, dumpOld(t, m.dir))
		must(t, unix.Rename(m.at("from/dir"), m.at("to")))
		after := dumpOld(t, m.dir)
		m.remount()
		same(t, "the tree mounted again", after, dumpOld(t, m.dir))
		if _, err := os.Stat(m.at("to/new")); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(filepath.Join(m.work, "*"))
		must(t, err)
		for _, path := range left {
			if filepath.Base(path) != readyMark {
				t.Errorf("left in the work directory: %s", path)
			}
		}
	})
}
