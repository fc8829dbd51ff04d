package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/fusefs"
	"github.com/ihucos/plash/overlay"
)

// BackendVar is the environment variable that forces a backend.
const BackendVar = "PLASH_BACKEND"

// A rootMount is the root of a container, mounted and attached nowhere yet: an
// [overlay.Mount] or a [fusefs.Mount], which see.
type rootMount interface {
	FD() int
	AttachTo(dir string) error
	Close() error
}

// A backend is a way to mount containers.
type backend struct {
	name string
	open func(im *image, ctx context.Context, o overlay.Options) (rootMount, error) // nil: not yet
}

// backends are all there are, in the order in which they are tried: the kernel alone
// before a process that serves, and what is stored as it is before what has to be
// unpacked, unless that is how the kernel can do it alone.
func backends() []backend {
	return []backend{
		{"erofs", kernel(overlay.EROFS)},
		{"unpack", kernel(overlay.Unpack)},
		{"fuse", (*image).openFUSE},
		{"union", nil},
		{"copy", nil},
		{"proot", nil},
	}
}

// choose returns the backends to try, best first.
func choose() ([]backend, error) {
	all := backends()
	forced := os.Getenv(BackendVar)
	if forced == "" {
		return slices.DeleteFunc(all, func(b backend) bool { return b.open == nil }), nil
	}
	var names []string
	for _, b := range all {
		if b.name == forced && b.open == nil {
			return nil, fmt.Errorf("backend %s: not supported by this version of plash", forced)
		}
		if b.name == forced {
			return []backend{b}, nil
		}
		names = append(names, b.name)
	}
	return nil, fmt.Errorf("%s=%s: unknown backend: expected one of %s", BackendVar, forced, strings.Join(names, ", "))
}

// open mounts the container with the best backend that works here, detached.
func (im *image) open(ctx context.Context, o overlay.Options) (rootMount, error) {
	if im.backends == nil {
		var err error
		if im.backends, err = choose(); err != nil {
			return nil, err
		}
	}
	o.Source = fmt.Sprintf("plash-%d", im.id)
	var errs []error
	for i, b := range im.backends {
		m, err := b.open(im, ctx, o)
		if err == nil {
			im.backends = im.backends[i:] // those before will not work the next time
			return m, nil
		}
		if errors.Is(err, overlay.ErrUpper) {
			err = &hintedError{err, "ext4, xfs, btrfs and tmpfs can hold an upper directory; overlayfs and network filesystems cannot"}
		}
		errs = append(errs, err)
		if !errors.Is(err, overlay.ErrUnsupported) && !errors.Is(err, fusefs.ErrUnsupported) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func kernel(b overlay.Backend) func(*image, context.Context, overlay.Options) (rootMount, error) {
	return func(im *image, ctx context.Context, o overlay.Options) (rootMount, error) {
		o.Backend = b
		m, err := overlay.Open(ctx, im.cas, im.layers, o)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
}

// openFUSE mounts the container by our FUSE filesystem, and overlayfs on it where there
// is something to write to or to put below.
func (im *image) openFUSE(ctx context.Context, o overlay.Options) (_ rootMount, err error) {
	served := im.served
	im.served = nil
	if served == nil {
		layers := make([]digest.Digest, len(im.layers))
		for i, l := range im.layers {
			layers[i] = l.Digest
		}
		if served, err = fusefs.Open(ctx, im.cas, layers, fusefs.Options{Source: o.Source, Log: im.log}); err != nil {
			return nil, err
		}
	}
	if o.Upper == "" && len(o.Below) == 0 {
		return served, nil
	}
	defer func() { err = errors.Join(err, served.Close()) }()
	if served.FD() < 0 {
		return nil, fmt.Errorf("put overlayfs on FUSE: %w: this needs detached mounts (Linux 5.2) and the right to mount", overlay.ErrUnsupported)
	}
	m, err := overlay.OpenOn(served.FD(), o)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// done gives back what open gave, which was only looked at. Its server waits for the
// next open.
func (im *image) done(m rootMount) error {
	if served, ok := m.(*fusefs.Mount); ok && im.served == nil {
		im.served = served
		return nil
	}
	return m.Close()
}

// close ends a server that waits in vain.
func (im *image) close() error {
	if im.served == nil {
		return nil
	}
	return im.served.Close()
}

// logFor is where a server may write that outlives the command that asks for it: not
// into a pipe, whose reader would wait for the server's end.
func logFor(f *os.File) *os.File {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK:
		return nil
	}
	return f
}
