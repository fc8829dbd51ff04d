// Package overlay mounts containers with the kernel's filesystems, and turns
// directories, above all upper directories of overlayfs, into layer tars.
//
// [Open] makes the root of a container out of its layers: the indexes and blobs
// of the store mounted as EROFS, or directories that the layers were unpacked
// into once, with overlayfs on top where there is something to stack or to
// write to. The result is a detached mount: it is in no mount table, and goes
// with its descriptor unless it is attached. [Pack] is the way back.
//
// Invariants:
//   - A mount is one mount: what it is made of (mounts of single indexes, loop
//     devices) is referred to by it alone, stays out of sight, and goes with it.
//   - Cost of a mount does not grow with the number of layers: at most a few
//     layers are stacked by overlayfs, more than that are merged into one index
//     (or one directory) that is kept.
//   - Upper directories get no redirect and no metacopy marks, so that each of
//     them can be packed without a look at what lies below.
//   - Nothing inside a layer or a directory to pack is reached by a joined path
//     or through a symbolic link.
//
// It does not choose a backend, make namespaces for what runs, or attach
// anything but what it is told to; that is the runtime's work. It takes no
// locks: the caller holds the store's shared lock while it calls Open.
package overlay

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd"
)

// ErrUnsupported is wrapped by errors of [Open] where the kernel, or what it
// lets this process do, is the reason that a backend cannot work here.
var ErrUnsupported = errors.New("not supported by this kernel or not permitted here")

// ErrNoOverlay is wrapped by errors of [Open] and [OpenOn] where overlayfs is what
// does not work here, and every other backend would want it too. It wraps
// [ErrUnsupported].
var ErrNoOverlay = fmt.Errorf("no overlayfs here: %w", ErrUnsupported)

// ErrUpper is wrapped by errors of [Open] where the layers can be mounted, but
// not with this upper directory: its filesystem cannot hold one (overlayfs itself,
// network filesystems), or upper and work directory do not fit together.
var ErrUpper = errors.New("cannot be an upper directory")

// A Backend is a way to have the content of layers mounted.
type Backend string

const (
	EROFS  Backend = "erofs"  // the kernel's EROFS on index and blobs, as they lie in the store
	Unpack Backend = "unpack" // directories that layers are unpacked into, once
)

// A Layer is a layer of a container.
type Layer struct {
	Digest digest.Digest
	// Packed says that the layer was made by [Pack] from an upper directory or
	// a plain directory: all parents of its entries are in it, with the
	// attributes that they have in the container. Only such a layer can be
	// stacked by overlayfs as it is.
	Packed bool
}

// Options say how to mount.
type Options struct {
	Backend Backend
	// Upper and Work are absolute paths of overlayfs' upper and work directory,
	// on one filesystem. Without them the mount is read-only.
	Upper, Work string
	// Volatile lets overlayfs skip every sync of Upper (since Linux 5.10,
	// ignored before). After a crash of the machine Upper is worthless.
	Volatile bool
	// Below are directories that go below all layers, top first: they show
	// where no layer has anything, as mount points that the image lacks.
	Below []string
	// Flat says that not all users of an image can be told apart here: unpacked files
	// belong to the caller, and devices are left out.
	Flat bool
	// Source is what mount tables show as source. The kernel wants to see the
	// index there when an index is mounted alone, read-only.
	Source string
	// Kept are mounts that an earlier Open of the same layers has made, or nil. The caller closes them.
	Kept *Layers
}

// A Mount is a mount that is attached nowhere, until AttachTo. Its
// descriptor is -1 before that on kernels without detached mounts (before Linux 5.2).
type Mount struct {
	mountfd.Mount
	recipe   *recipe // nil if it cannot be recorded
	detached bool    // it is an overlayfs whose layers are as they were
}

// Open mounts the tree that layers (bottom first) make up. Without layers it is
// an empty directory. The caller closes the mount, also after AttachTo.
func Open(ctx context.Context, s *cas.Store, layers []Layer, o Options) (*Mount, error) {
	if (o.Upper == "") != (o.Work == "") {
		return nil, errors.New("mount container: upper and work directory belong together")
	}
	var m *Mount
	var err error
	switch {
	case o.Backend == EROFS:
		m, err = openErofs(ctx, s, layers, &o)
	case o.Backend == Unpack:
		m, err = openUnpacked(ctx, s, layers, &o)
	default:
		return nil, fmt.Errorf("mount container: no such backend: %q", o.Backend)
	}
	if err != nil {
		return nil, fmt.Errorf("mount container with backend %s: %w", o.Backend, err)
	}
	return m, nil
}

// OpenOn mounts an overlayfs on a tree that is mounted already, detached: another
// filesystem's view of a container. The mount is
// attached for good where the kernel cannot clone it (before Linux 6.15).
// Options.Backend means nothing here.
//
// Where the base has handles, each layer's files have an st_dev of their own: that makes overlayfs
// do without handles of a filesystem without UUID (fs/overlayfs/super.c,
// ovl_lower_uuid_ok).
func OpenOn(base Base, o Options) (*Mount, error) {
	if (o.Upper == "") != (o.Work == "") {
		return nil, errors.New("mount container: upper and work directory belong together")
	}
	fd, err := unix.FcntlInt(uintptr(base.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount overlayfs: %w", err)
	}
	l := lowers{{fd: fd, origin: &origin{base.Recorded, base.Record, base.RecordReady}}}
	defer l.close()
	x := xinoOn
	if base.Handles() {
		x = xinoAuto
	}
	return openOverlay(&l, &o, x)
}

func mountOf(fd int) *Mount { return &Mount{Mount: mountfd.Of(fd)} }

// digests are the layers' digests.
func digests(layers []Layer) []digest.Digest {
	d := make([]digest.Digest, len(layers))
	for i, l := range layers {
		d[i] = l.Digest
	}
	return d
}
