package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clockStep is how far in the future a change must lie for the clock to have been set
// back since: then it will hardly be met to the nanosecond.
const clockStep = 5e9

// waitPast waits until a change of a file gives a ctime later than last, nanoseconds
// since the epoch.
func waitPast(ctx context.Context, probe *os.File, last int64) error {
	for {
		now, err := touch(probe)
		if err != nil {
			return fmt.Errorf("ask for the time of a filesystem: %w", err)
		}
		if now > last || now < last-clockStep {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// touch changes a file, and gives its new ctime.
func touch(f *os.File) (int64, error) {
	if err := unix.Fchmod(int(f.Fd()), 0o600); err != nil {
		return 0, err
	}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_CTIME, &st); err != nil {
		return 0, err
	}
	return stampOf(&st).ctime, nil
}

// TellsChanges tries whether the filesystem of dir, a directory of our own, sets the
// ctime of a file also when it is written to through memory that was read before: tmpfs
// does not, and what lies on one (an overlayfs) neither. There a manifest does not tell
// all that was changed.
func TellsChanges(ctx context.Context, dir string) (tells bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("try whether changes in %s can be told: %w", dir, err)
		}
	}()
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(dir, "probe")
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, os.Remove(f.Name()), f.Close()) }()
		files[i] = f
	}
	file, clock := files[0], files[1]
	if _, err := file.Write([]byte("x")); err != nil {
		return false, err
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return true, nil // nobody can map files there
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(mem)) }()
	read := mem[0]
	before, err := touch(file)
	if err == nil {
		err = waitPast(ctx, clock, before)
	}
	if err != nil {
		return false, err
	}
	mem[0] = read + 1
	var st unix.Statx_t
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_CTIME, &st); err != nil {
		return false, err
	}
	return stampOf(&st).ctime != before, nil
}
