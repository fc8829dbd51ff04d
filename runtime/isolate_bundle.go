package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/program"
)

// WriteBundle makes a directory, which is empty or not there, a bundle of what [Isolate]
// would run, with a copy of the container's tree, which runc or crun can run without plash. A
// plain user's is for himself: all of it belongs to him, and he is the only user inside.
//
// It appears whole. What a kill leaves is a directory beside it, whose name begins with its
// name and ".partial-".
func WriteBundle(ctx context.Context, st *container.Store, id container.ID, dir string, o IsolateOptions) (err error) {
	defer func() {
		if err != nil {
			err = program.NotStarted(fmt.Errorf("write bundle: %w", err))
		}
	}()
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: %w", dir, unix.ENOTEMPTY)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".partial-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := fillBundle(ctx, st, id, tmp, o); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	// An empty directory gives way, but package os thinks otherwise.
	if err := unix.Rename(tmp, dir); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: dir, Err: err}
	}
	return nil
}

func fillBundle(ctx context.Context, st *container.Store, id container.ID, dir string, o IsolateOptions) (err error) {
	c := &isolated{Argv: o.Argv, Mounts: o.Mounts, container: bundle.Container{
		Name: fmt.Sprintf("plash-%d", id), Term: os.Getenv("TERM"), Devices: true,
	}}
	c.container.Terminal = onTerminal()
	if uid := os.Geteuid(); uid != 0 {
		c.container.Owner, c.container.UserNamespace, c.container.Devices = &bundle.Owner{UID: uid, GID: os.Getegid()}, true, false
		c.single = true
	}
	if err := c.share(); err != nil {
		return err
	}
	tree := filepath.Join(dir, bundle.RootDir)
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	root, err := os.Open(tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	err = withImage(ctx, st, id, func(im *image) (err error) {
		c.container.Image = im.config
		ix, err := im.cas.Merged(ctx, im.digests())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ix.Close()) }()
		t := overlay.OpenTree(im.cas, ix, root, nil)
		t.SetMeter(o.Meter)
		return t.Make(ctx, nil)
	})
	if err != nil {
		return err
	}
	if err := c.choose(int(root.Fd())); err != nil {
		return err
	}
	return c.write(dir)
}
