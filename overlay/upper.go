package overlay

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/tarstream"
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
	root, err := rootOf(ctx, s, layers)
	if err != nil {
		return err
	}
	if root == nil {
		root = &tarstream.Entry{Mode: 0o755}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mtime := unix.Timespec{Sec: root.MtimeSec, Nsec: int64(root.MtimeNsec)}
	if err := setRoot(fd, root.Mode, int(root.UID), int(root.GID), mtime); err != nil {
		return err
	}
	for _, x := range root.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil && !mayLack(err) {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// rootOf describes the root directory of a container: as the topmost layer does
// that says anything about it. It is nil if none does.
func rootOf(ctx context.Context, s *cas.Store, layers []Layer) (*tarstream.Entry, error) {
	for _, l := range slices.Backward(layers) {
		if e, err := rootIn(ctx, s, l); e != nil || err != nil {
			return e, err
		}
	}
	return nil, nil
}

func rootIn(ctx context.Context, s *cas.Store, l Layer) (_ *tarstream.Entry, err error) {
	ix, err := s.Index(ctx, l.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	if ix.ImpliedRoot() {
		return nil, nil
	}
	root, err := ix.Inode(ix.Root())
	if err != nil {
		return nil, err
	}
	xattrs, err := ix.Xattrs(&root)
	if err != nil {
		return nil, err
	}
	e := &tarstream.Entry{
		Name: "./", Type: tarstream.TypeDir, Mode: root.Mode &^ unix.S_IFMT, UID: root.UID, GID: root.GID,
		MtimeSec: root.MtimeSec, MtimeNsec: root.MtimeNsec,
	}
	for _, x := range xattrs {
		if _, mark := overlayMark(x.Name); !mark {
			e.Xattrs = append(e.Xattrs, tarstream.Xattr(x))
		}
	}
	return e, nil
}

func setRoot(fd int, mode uint32, uid, gid int, mtime unix.Timespec) error {
	if err := unix.Fchown(fd, uid, gid); err != nil && !mayLack(err) {
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

// UpperFault finds out why overlayfs does not take an upper and a work directory,
// where the reason is theirs and not their filesystem's; nil if it finds nothing.
func UpperFault(upper, work string) error {
	var st [2]unix.Stat_t
	for i, dir := range []string{upper, work} {
		what := []string{"upper", "work"}[i]
		if err := unix.Stat(dir, &st[i]); err != nil {
			return fmt.Errorf("%s directory %s: %w", what, dir, err)
		}
		if st[i].Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%s directory %s: %w", what, dir, unix.ENOTDIR)
		}
	}
	var fault string
	switch {
	case sameFile(&st[0], &st[1]):
		fault = "are one directory"
	case st[0].Dev != st[1].Dev:
		fault = "are on two filesystems"
	case liesIn(work, &st[0]):
		fault = "must be apart: the second lies in the first"
	case liesIn(upper, &st[1]):
		fault = "must be apart: the first lies in the second"
	default:
		return nil
	}
	return fmt.Errorf("upper directory %s and work directory %s %s", upper, work, fault)
}

func sameFile(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// liesIn tells whether a directory lies below the one that above describes.
func liesIn(dir string, above *unix.Stat_t) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for dir != "/" && dir != "." {
		dir = filepath.Dir(dir)
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil && sameFile(&st, above) {
			return true
		}
	}
	return false
}
