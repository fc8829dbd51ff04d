package overlay

import (
	"context"
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
