package overlay

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// Layers are mounts of layers by EROFS. Kept in [Options] from one Open to the next one of the same
// layers, or of more on top of them, those that both have are mounted once: besides the time that
// this takes, what has been read of them stays in the kernel's cache. The zero value is empty. They are
// for one goroutine at a time.
type Layers struct {
	mounts []layerMount // of the last Open, top first
	seen   []*Mount
}

type layerMount struct {
	lower
	id layerID
}

// A layerID tells what is mounted, and how.
type layerID struct {
	index  digest.Digest // the layer, or the ChainID of those that are merged
	merged bool
	loop   bool
}

// Seen takes over a mount that has been looked at, to close it with the others.
func (k *Layers) Seen(m *Mount) { k.seen = append(k.seen, m) }

// Close lets go of the mounts.
func (k *Layers) Close() {
	mounts, seen := k.mounts, k.seen
	k.mounts, k.seen = nil, nil
	closeMounts(mounts, seen)
}

// closeMounts closes mounts that are read-only: there is nothing that could fail and matter.
func closeMounts(mounts []layerMount, seen []*Mount) {
	for _, m := range seen {
		_ = m.Close()
	}
	for _, m := range mounts {
		unix.Close(m.fd)
	}
}

// lowers are the mounts for an overlayfs.
func (k *Layers) lowers() lowers {
	var l lowers
	for _, m := range k.mounts {
		l = append(l, m.lower)
	}
	return l
}

// mount mounts the layers, the lowest of them by one merged index.
func (k *Layers) mount(ctx context.Context, s *cas.Store, layers []Layer, merged int, loop bool) error {
	old, seen := k.mounts, k.seen
	k.mounts, k.seen = nil, nil
	// Beside what the caller does next: for each of them the kernel waits until all CPUs have taken
	// notice (RCU), half a millisecond.
	defer func() {
		if len(old)+len(seen) > 0 {
			go closeMounts(old, seen)
		}
	}()
	add := func(id layerID, index func() (*cas.Index, error)) error {
		for i, m := range old {
			if m.id == id {
				k.mounts = append(k.mounts, m)
				old = append(old[:i], old[i+1:]...)
				return nil
			}
		}
		ix, err := index()
		if err != nil {
			return err
		}
		lw, err := mountIndex(s, ix, loop)
		if err == nil {
			k.mounts = append(k.mounts, layerMount{lw, id})
		}
		return err
	}
	for i := len(layers) - 1; i >= merged; i-- {
		d := layers[i].Digest
		if err := add(layerID{d, false, loop}, func() (*cas.Index, error) { return s.Index(ctx, d) }); err != nil {
			return err
		}
	}
	base := digests(layers[:merged])
	return add(layerID{cas.ChainID(base), true, loop}, func() (*cas.Index, error) { return s.Merged(ctx, base) })
}

// bottom is the mount of the merged index, which has all layers. If it is not to be kept, it is
// handed over: while another descriptor of it is open, nobody can unmount it.
func (k *Layers) bottom(keep bool) (*Mount, error) {
	fd := k.mounts[0].fd
	if fd < 0 || !keep {
		k.mounts = nil
		return mountOf(fd), nil
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep mount: %w", err)
	}
	return mountOf(fd), nil
}
