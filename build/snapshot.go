package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// isDir reports whether the tree is a directory.
func (t *hostTree) isDir() bool { return t.entries[0].kind == 'd' }

// copyable says which file of the tree cannot be copied.
func (t *hostTree) copyable() error {
	for _, e := range t.entries {
		if what := map[byte]string{'s': "a socket", 'c': "a device", 'b': "a device"}[e.kind]; what != "" {
			return fmt.Errorf("%s is %s, which is not copied", filepath.Join(t.root, e.name), what)
		}
	}
	return nil
}

// takeInputs makes a directory of what a layer's script finds in its input. It is a copy, so
// that what is in it is what the digests say: the files themselves may change at any time.
func takeInputs(ctx context.Context, s *cas.Store, inputs []input) (dir string, scratch *cas.Scratch, err error) {
	if scratch, err = s.Scratch("copy"); err != nil {
		return "", nil, err
	}
	dir = filepath.Join(scratch.Path(), "input")
	if err = os.Mkdir(dir, 0o755); err == nil {
		for i, in := range inputs {
			if err = in.take(ctx, filepath.Join(dir, strconv.Itoa(i+1))); err != nil {
				err = fmt.Errorf("copy %s: %w", in.tree.root, err)
				break
			}
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, scratch.Remove())
	}
	return dir, scratch, nil
}

func (in input) take(ctx context.Context, to string) error {
	if in.within != "" {
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		to = filepath.Join(to, in.within)
	}
	if err := in.tree.copyTo(ctx, to); err != nil {
		return err
	}
	taken, err := readTree(ctx, to, nil)
	if err != nil {
		return err
	}
	if taken.digest != in.tree.digest {
		return errors.New("it changed while it was read")
	}
	return nil
}

// copyTo copies the tree. Directories get their modes and times at the end, when nothing is
// made in them any more.
func (t *hostTree) copyTo(ctx context.Context, to string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(goruntime.GOMAXPROCS(0))
	var err error
	for _, e := range t.entries {
		from, at := filepath.Join(t.root, e.name), filepath.Join(to, e.name)
		switch e.kind {
		case 'd':
			err = os.Mkdir(at, 0o700)
		case 'l':
			err = os.Symlink(e.value, at)
		case 'p':
			err = unix.Mkfifo(at, 0o600)
		default:
			group.Go(func() error { return copyFile(ctx, from, at) })
		}
		if err != nil {
			break
		}
	}
	if err = errors.Join(err, group.Wait()); err != nil {
		return err
	}
	for i := len(t.entries) - 1; i >= 0; i-- {
		if err := t.dress(t.entries[i], to); err != nil {
			return err
		}
	}
	return nil
}

// dress gives a copy the mode and the time of its original.
func (t *hostTree) dress(e *entry, to string) error {
	from, at := filepath.Join(t.root, e.name), filepath.Join(to, e.name)
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: from, Err: err}
	}
	if e.kind != 'l' {
		// Not os.Chmod, which has no set-id bits.
		if err := unix.Chmod(at, e.mode); err != nil {
			return &os.PathError{Op: "chmod", Path: at, Err: err}
		}
	}
	times := []unix.Timespec{st.Mtim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: at, Err: err}
	}
	return nil
}

func copyFile(ctx context.Context, from, to string) (err error) {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	// In pieces, so that it can be stopped; within the kernel, which may share the blocks.
	for {
		n, err := io.CopyN(dst, src, 64<<20)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil || n == 0 {
			return err
		}
	}
}
