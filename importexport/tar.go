package importexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
	"golang.org/x/sys/unix"
)

// ImportTar makes a container of the tar, plain or compressed with gzip, zstd,
// xz or bzip2, that r yields. name says in records and errors where it comes
// from. The same content gives the same container.
//
// o.Progress is told of an import that takes its time.
func ImportTar(ctx context.Context, st *container.Store, r io.Reader, name string, o Options) (container.ID, error) {
	return importReader(ctx, st, r, name, o, func() ([]string, error) { return nil, nil })
}

// importReader imports what r yields. finish is asked, when all is read, for
// the cache keys that the container gets, or why there shall be none.
func importReader(ctx context.Context, st *container.Store, r io.Reader, name string, o Options, finish func() ([]string, error)) (_ container.ID, err error) {
	file := progress.NewReader(r, o.display())
	staged, err := st.CAS().Ingest(ctx, file, cas.IngestOptions{})
	file.Close()
	if err != nil {
		return 0, fmt.Errorf("import %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	keys, err := finish()
	if err != nil {
		return 0, fmt.Errorf("import %s: %w", name, err)
	}
	return keep(ctx, st, staged, name, keys...)
}

// ImportTarFile makes a container of the tar file at path, as [ImportTar]. A
// file that is as it was when it was last imported is not read again, unless
// o.Refresh is set.
func ImportTarFile(ctx context.Context, st *container.Store, path string, o Options) (_ container.ID, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return 0, fmt.Errorf("import %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	now := time.Now()
	before, err := stat(f)
	if err != nil {
		return 0, err
	}
	switch before.mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return 0, fmt.Errorf("import %s: %w", path, &hinted{
			unix.EISDIR, "plash-add-layer 0 DIR makes a container of a directory",
		})
	default:
		// A pipe has one name for all it ever carries.
		return ImportTar(ctx, st, f, path, o)
	}
	key := before.key(abs)
	return cached(ctx, st, key, o.Refresh, func() (container.ID, error) {
		return importReader(ctx, st, f, path, o, unchanged(f, before, now, key))
	})
}

// unchanged returns a function that says what of f, which was in the state
// before at the time now, can be relied on: an error if it has changed since,
// else the cache key, if it will do for later as well.
func unchanged(f *os.File, before fileState, now time.Time, key string) func() ([]string, error) {
	return func() ([]string, error) {
		after, err := stat(f)
		switch {
		case err != nil:
			return nil, err
		case after.size != before.size || after.mtime != before.mtime:
			return nil, errors.New("the file changed while it was read")
		case after != before || !before.settled(now):
			// It may still change without showing it: the key would then stand
			// for other content.
			return nil, nil
		default:
			return []string{key}, nil
		}
	}
}

// fileState is what tells that a file is as it was.
type fileState struct {
	mode         uint32
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// fileTimeGrain is the coarsest step of a file's times that is in use (FAT has
// two seconds): a file changed twice within it may look the same.
const fileTimeGrain = 2 * time.Second

func stat(f *os.File) (fileState, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return fileState{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fileState{mode: s.Mode, dev: s.Dev, ino: s.Ino, size: s.Size, mtime: s.Mtim, ctime: s.Ctim}, nil
}

// settled reports whether every change after now shows in the file's state.
func (s fileState) settled(now time.Time) bool {
	return now.Sub(time.Unix(s.ctime.Unix())) >= fileTimeGrain
}

// key is the cache key of the file at path in this state.
func (s fileState) key(path string) string {
	return fmt.Sprintf("file:%d:%d:%d:%d:%d:%s", s.dev, s.ino, s.size, s.mtime.Nano(), s.ctime.Nano(), path)
}
