package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
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
	open func(im *image, ctx context.Context, o overlay.Options) (rootMount, error) // nil: it mounts nothing
	// stacks says that overlayfs goes on top where there is something to write to.
	stacks bool
}

// backends are all there are.
func backends() []backend {
	return []backend{
		{"erofs", kernel(overlay.EROFS), true},
		{"unpack", kernel(overlay.Unpack), true},
		{"fuse", (*image).openFUSE, true},
		{"union", (*image).openUnion, false},
		{"copy", nil, false},
		{"proot", nil, false},
	}
}

// order says which backends are tried, best first, in a user namespace or not. What is stored is used as it is,
// by the kernel if it can, before anything is unpacked; but to work in, rather than
// to look at, a container is unpacked where the kernel then needs no process that
// serves it.
func order(work, userNS bool) []string {
	if userNS {
		// The kernel has no EROFS there, and what is unpacked has no owners.
		return []string{"fuse", "unpack", "union"}
	}
	if work {
		return []string{"erofs", "unpack", "fuse", "union"}
	}
	return []string{"erofs", "fuse", "unpack", "union"}
}

// choose returns the backends to try for what is to be done.
func choose(work bool) ([]backend, error) {
	all := backends()
	forced := os.Getenv(BackendVar)
	if forced == "" {
		var chosen []backend
		for _, name := range order(work, inUserNamespace()) {
			i := slices.IndexFunc(all, func(b backend) bool { return b.name == name })
			if all[i].open != nil {
				chosen = append(chosen, all[i])
			}
		}
		return chosen, nil
	}
	var names []string
	for _, b := range all {
		if b.name == forced && b.open == nil {
			return nil, fmt.Errorf("backend %s: %w: programs work in copies", forced, errNoMounts)
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
	return im.openFor(ctx, o.Upper != "", o)
}

// openKept is open for an upper directory that the caller has chosen: one that overlayfs cannot
// have (it lies on another overlayfs, say) our own filesystem can.
func (im *image) openKept(ctx context.Context, o overlay.Options) (rootMount, error) {
	m, err := im.open(ctx, o)
	if !errors.Is(err, overlay.ErrUpper) || os.Getenv(BackendVar) != "" {
		return m, err
	}
	o.Source = im.source()
	m, unionErr := im.openUnion(ctx, o)
	if unionErr != nil {
		return nil, err
	}
	return m, nil
}

// look is open for a container that is only looked at before it is worked in. Done
// gives back what it returns.
func (im *image) look(ctx context.Context) (rootMount, error) {
	return im.openFor(ctx, true, overlay.Options{})
}

func (im *image) openFor(ctx context.Context, work bool, o overlay.Options) (rootMount, error) {
	candidates, err := choose(work)
	if err != nil {
		return nil, err
	}
	im.work = im.work || work
	o.Source = im.source()
	o.Flat = staged != nil && staged.Flat
	o.Kept = im.kept
	stacked := o.Upper != "" || len(o.Below) > 0
	if im.host == nil {
		known := readProbed(im.cas)
		im.host = &known
	}
	var errs []error
	for _, b := range candidates {
		if len(candidates) > 1 && (im.host.Unable[b.name] || im.host.NoOverlay && stacked && b.stacks) {
			continue
		}
		m, err := b.open(im, ctx, o)
		if err == nil {
			if len(errs) > 0 {
				im.host.write(im.cas)
			}
			return m, nil
		}
		if errors.Is(err, overlay.ErrUpper) {
			err = &hintedError{err, "ext4, xfs, btrfs and tmpfs can hold an upper directory; overlayfs and network filesystems cannot"}
		}
		errs = append(errs, err)
		switch {
		case errors.Is(err, overlay.ErrNoOverlay):
			im.host.NoOverlay = true
		case errors.Is(err, overlay.ErrUnsupported), errors.Is(err, fusefs.ErrUnsupported):
			im.host.Unable[b.name] = true
		default:
			return nil, errors.Join(errs...)
		}
	}
	if len(errs) == 0 {
		// Everything was known not to work, and who wants to know why has it tried again.
		forgetProbed(im.cas)
		im.host = &probed{Unable: map[string]bool{}}
		return im.openFor(ctx, work, o)
	}
	return nil, &noBackendError{errors.Join(errs...)}
}

// source is what mount tables show as the source of the container's mounts.
func (im *image) source() string { return fmt.Sprintf("plash-%d", im.id) }

// A noBackendError says why none of the backends works. Then a copy may.
type noBackendError struct{ err error }

func (e *noBackendError) Error() string   { return e.err.Error() }
func (e *noBackendError) Unwrap() []error { return []error{e.err, errNoMounts} }
func (e *noBackendError) Hint() string    { return "`plash-doctor` says what would help" }

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
		if served, err = fusefs.Open(ctx, im.cas, im.digests(), fusefs.Options{Source: o.Source, Log: im.log, Stacked: im.work || len(o.Below) > 0}); err != nil {
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
	m, err := overlay.OpenOn(served, o)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// openUnion mounts the container by our FUSE filesystem alone, with its own writable
// top where there is something to write to.
func (im *image) openUnion(ctx context.Context, o overlay.Options) (rootMount, error) {
	if o.Upper == "" && len(o.Below) == 0 {
		return im.openFUSE(ctx, o)
	}
	if o.Upper != "" {
		if err := overlay.UpperFault(o.Upper, o.Work); err != nil {
			return nil, err
		}
	}
	places, err := placesIn(o.Below)
	if err != nil {
		return nil, err
	}
	m, err := fusefs.Open(ctx, im.cas, im.digests(), fusefs.Options{
		Upper: o.Upper, Work: o.Work, Volatile: o.Volatile, Places: places, Source: o.Source, Log: im.log,
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// placesIn lists what is in directories that were made to go below all layers.
func placesIn(dirs []string) ([]cas.Place, error) {
	var places []cas.Place
	for _, dir := range dirs {
		err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && path != "." {
				places = append(places, cas.Place{Path: path, Dir: d.IsDir()})
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list mount points: %w", err)
		}
	}
	return places, nil
}

// digests are those of the layers.
func (im *image) digests() []digest.Digest {
	d := make([]digest.Digest, len(im.layers))
	for i, l := range im.layers {
		d[i] = l.Digest
	}
	return d
}

// done gives back what look gave. Its server waits for the next open.
func (im *image) done(m rootMount) error {
	if served, ok := m.(*fusefs.Mount); ok && im.served == nil {
		im.served = served
		return nil
	}
	if m, ok := m.(*overlay.Mount); ok && m.FD() >= 0 {
		im.kept.Seen(m)
		return nil
	}
	return m.Close()
}

// close lets go of what was kept for another open, and ends a server that waits in vain.
func (im *image) close() error {
	im.own.Close()
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
