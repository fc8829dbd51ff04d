package overlay

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// maxStackedIndexes is how many single layers' indexes are put on a merged one.
// Each costs 0.3 ms at every mount (its index is verified and mounted) and
// makes lookups and listings of merged directories a little longer; merging
// costs tens of milliseconds for a common image, but once.
const maxStackedIndexes = 8

// Force makes tests take the ways of older kernels.
var force struct {
	loop    bool // EROFS on loop devices (before 6.12)
	attach  bool // overlayfs' layers attached in a private mount namespace (before 6.15)
	mount2  bool // mount(2) only (before 5.2)
	noClone bool // no mount_setattr(2) (before 5.12)
}

func openErofs(ctx context.Context, s *cas.Store, layers []Layer, o *Options) (*Mount, error) {
	if len(layers) == 0 {
		return openEmpty(o)
	}
	merged := planLayers(layers, maxStackedIndexes, s.HasMerged)
	stacked := o.Upper != "" || len(o.Below) > 0 || merged < len(layers)
	loop := force.loop || stacked && stacksTooDeep(s.Dir())

	kept := o.Kept
	if kept == nil {
		kept = &Layers{}
		defer kept.Close()
	}
	if err := kept.mount(ctx, s, layers, merged, loop); err != nil {
		return nil, err
	}
	if !stacked {
		return kept.bottom(o.Kept != nil)
	}
	lower := kept.lowers()
	n := len(lower)
	m, err := openOverlay(&lower, o, xinoOn)
	more := lower[n:]
	more.close()
	if m == nil || !m.detached {
		kept.Close() // they have been attached, and will not do once more
	}
	return m, err
}

// mountIndex gives a detached read-only mount of an index and its blobs. The
// index is closed.
func mountIndex(s *cas.Store, ix *cas.Index, loop bool) (lw lower, err error) {
	blobs := ix.Blobs()
	defer func() {
		err = errors.Join(err, ix.Close())
		if err != nil {
			err = fmt.Errorf("mount index %s with %d blobs: %w", ix.Path(), len(blobs), err)
		}
	}()
	paths := []string{ix.Path()}
	for _, b := range blobs {
		paths = append(paths, s.BlobPath(b))
	}
	if !loop {
		fd, err := mountErofs(paths)
		// EROFS takes plain files since Linux 6.12 (CONFIG_EROFS_FS_BACKED_BY_FILE);
		// before, and on filesystems that it cannot read so, a block device is wanted.
		if !errors.Is(err, unix.ENOTBLK) {
			return lower{fd: fd, origin: erofsOrigin(paths)}, classify(err)
		}
	}
	devices, err := attachLoops(paths)
	if err != nil {
		return lower{}, err
	}
	fd, err := mountErofs(devices.paths())
	// The mount holds the devices now, or nobody does.
	return lower{fd: fd}, errors.Join(classify(err), devices.close())
}

// mountErofs mounts the first file with the others as its extra devices
// (Documentation/filesystems/erofs.rst, "device", since Linux 5.16).
func mountErofs(files []string) (int, error) {
	var names pathNames
	defer names.close()
	c := newFSContext("erofs")
	defer c.close()
	for i, f := range files {
		name, err := names.name(f, "")
		if err != nil {
			return -1, err
		}
		key := "device"
		if i == 0 {
			key = "source"
		}
		c.setString(key, name)
	}
	c.setFlag("ro")
	return c.mount(unix.MOUNT_ATTR_RDONLY)
}

// stacksTooDeep says whether the store lies on a stacked filesystem. The kernel
// lets two be stacked (FILESYSTEM_MAX_STACK_DEPTH), and counts EROFS on plain
// files as one: overlayfs on that on overlayfs would be the third. Loop devices
// are not counted.
func stacksTooDeep(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false
	}
	return st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.ECRYPTFS_SUPER_MAGIC
}
