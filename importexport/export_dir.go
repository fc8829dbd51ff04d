package importexport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/ihucos/plash/overlay"
	"golang.org/x/sys/unix"
)

// ErrDirNotEmpty says that a directory which is to become a container's tree has something in it.
var ErrDirNotEmpty = errors.New("the directory is not empty")

// ExportDir makes a container's tree in a directory: a new one, which appears when it is
// complete, or one that is there and empty. If it fails there is nothing in it.
//
// A plain user owns all of it, and has no devices: see [ExportOptions].
func ExportDir(ctx context.Context, st *container.Store, id container.ID, dir string, o ExportOptions) error {
	var left overlay.LeftOut
	err := exportView(ctx, st, id, o, func(view *cas.View, m *progress.Meter) error {
		return dirError(dir, fillDir(dir, func(at string) (err error) {
			left, err = overlay.UnpackTo(ctx, st.CAS(), view, at, m)
			return err
		}))
	})
	if text := leftOutText(left); err == nil && text != "" {
		o.warn(text)
	}
	return err
}

// fillDir lets fill make something in a directory.
func fillDir(dir string, fill func(at string) error) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newDir(dir, fill)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", dir, ErrDirNotEmpty)
	}
	// It may be a mount point, so it cannot be replaced.
	if err := fill(dir); err != nil {
		return errors.Join(err, emptyDir(dir))
	}
	return nil
}

// newDir makes a directory that has its name when it is filled.
func newDir(dir string, fill func(at string) error) error {
	dir = filepath.Clean(dir)
	tmp := filepath.Join(filepath.Dir(dir), ".plash-"+rand.Text())
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.Unwrap(err)}
	}
	err := fill(tmp)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = os.Rename(tmp, dir) // which replaces nothing but an empty directory
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("rename to %s: %w", dir, err)
	}
	return errors.Join(err, emptyDir(tmp), os.Remove(tmp))
}

// emptyDir removes what is in a directory.
func emptyDir(dir string) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// dirError tells trouble with the directory from trouble with the store.
func dirError(dir string, err error) error {
	for _, place := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES, unix.EPERM, fs.ErrNotExist, fs.ErrExist, unix.ENOTDIR} {
		if errors.Is(err, place) {
			return &output.WriteError{Name: dir, Err: err}
		}
	}
	return err
}

func leftOutText(left overlay.LeftOut) string {
	var what []string
	if left.Owners {
		what = append(what, "all files belong to you, and no program runs as its owner")
	}
	if left.Devices {
		what = append(what, "devices are left out")
	}
	if left.Attributes {
		what = append(what, "some extended attributes are left out")
	}
	if len(what) == 0 {
		return ""
	}
	return strings.Join(what, "; ") + ": only root may make them"
}
