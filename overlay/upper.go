package overlay

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// PrepareUpper gives dir, an empty upper directory, the owner, mode, attributes
// and time of the container's root: overlayfs shows those of the topmost layer. A
// container without layers has a root of mode 0755 that belongs to root, from the
// beginning of time.
func PrepareUpper(ctx context.Context, s *cas.Store, layers []Layer, dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prepare upper directory %s: %w", dir, err)
		}
	}()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := len(layers) - 1; i >= 0; i-- {
		done, err := rootFromLayer(ctx, s, layers[i], fd)
		if done || err != nil {
			return err
		}
	}
	return setRoot(fd, 0o755, 0, 0, unix.Timespec{})
}

// rootFromLayer sets the attributes of the directory fd to those of a layer's
// root; false if the layer does not say anything about it.
func rootFromLayer(ctx context.Context, s *cas.Store, l Layer, fd int) (done bool, err error) {
	ix, err := s.Index(ctx, l.Digest)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	if ix.ImpliedRoot() {
		return false, nil
	}
	root, err := ix.Inode(ix.Root())
	if err != nil {
		return false, err
	}
	xattrs, err := ix.Xattrs(&root)
	if err != nil {
		return false, err
	}
	mtime := unix.Timespec{Sec: root.MtimeSec, Nsec: int64(root.MtimeNsec)}
	if err := setRoot(fd, root.Mode&0o7777, int(root.UID), int(root.GID), mtime); err != nil {
		return false, err
	}
	for _, x := range xattrs {
		if _, mark := overlayMark(x.Name); mark {
			continue
		}
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return false, fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	return true, nil
}

func setRoot(fd int, mode uint32, uid, gid int, mtime unix.Timespec) error {
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	if err := unix.UtimesNanoAt(fd, ".", times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}
