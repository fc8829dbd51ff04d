package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ihucos/plash/overlay"
)

// BackendVar is the environment variable that forces a backend.
const BackendVar = "PLASH_BACKEND"

// backendNames are all names that [BackendVar] may hold one day.
var backendNames = []string{"erofs", "unpack", "fuse", "union", "copy", "proot"}

// backends returns the backends to try, best first.
func backends() ([]overlay.Backend, error) {
	switch name := os.Getenv(BackendVar); name {
	case "":
		return []overlay.Backend{overlay.EROFS, overlay.Unpack}, nil
	case "erofs":
		return []overlay.Backend{overlay.EROFS}, nil
	case "unpack":
		return []overlay.Backend{overlay.Unpack}, nil
	case "fuse", "union", "copy", "proot":
		return nil, fmt.Errorf("backend %s: not supported by this version of plash", name)
	default:
		return nil, fmt.Errorf("%s=%s: unknown backend: expected one of %s", BackendVar, name, strings.Join(backendNames, ", "))
	}
}

// open mounts the container with the best backend that works here, detached.
func (im *image) open(ctx context.Context, o overlay.Options) (*overlay.Mount, error) {
	names, err := backends()
	if err != nil {
		return nil, err
	}
	o.Source = fmt.Sprintf("plash-%d", im.id)
	var errs []error
	for _, name := range names {
		o.Backend = name
		m, err := overlay.Open(ctx, im.cas, im.layers, o)
		if err == nil {
			return m, nil
		}
		if errors.Is(err, overlay.ErrUpper) {
			err = &hintedError{err, "ext4, xfs, btrfs and tmpfs can hold an upper directory; overlayfs and network filesystems cannot"}
		}
		errs = append(errs, err)
		if !errors.Is(err, overlay.ErrUnsupported) {
			break
		}
	}
	return nil, errors.Join(errs...)
}
