package overlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// Forgive makes directories of the tree count as unchanged, after the caller has put
// something into them that does not belong to the container: they get their time back.
// Paths are relative to the root, "" is the root itself; what the container does not
// have is passed over.
func (t *Tree) Forgive(paths []string) error {
	for _, path := range paths {
		if err := t.forgive(path); err != nil {
			return fmt.Errorf("keep %q of tree %s as it was: %w", "/"+path, t.root.Name(), err)
		}
	}
	return nil
}

func (t *Tree) forgive(path string) error {
	nid, at, err := t.find(path)
	if errors.Is(err, erofs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	in, err := t.ix.Inode(nid)
	if err != nil || !in.IsDir() {
		return err
	}
	fd, err := openDirBelow(int(t.root.Fd()), path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: in.MtimeSec, Nsec: int64(in.MtimeNsec)}}
	if err := unix.UtimesNanoAt(fd, ".", times, 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	if at == rootSpot {
		t.m.root = stampOf(&st)
	} else {
		t.m.dirs[at.dir][at.pos] = stampOf(&st)
	}
	return nil
}

// find gives what the index has at a path, and where its stamp is.
func (t *Tree) find(path string) (erofs.NID, spot, error) {
	if path == "" {
		return t.ix.Root(), rootSpot, nil
	}
	parent := t.ix.Root()
	dir, name := splitName(path)
	if dir != "" {
		var err error
		if parent, err = lookup(t.ix.Image, dir); err != nil {
			return 0, spot{}, err
		}
	}
	in, err := t.ix.Inode(parent)
	if err != nil {
		return 0, spot{}, err
	}
	if _, err := t.ix.Lookup(&in, name); err != nil {
		return 0, spot{}, err
	}
	at := spot{dir: parent, pos: -1}
	var nid erofs.NID
	err = t.ix.ReadDir(&in, func(e erofs.Dirent) bool {
		at.pos++
		nid = e.NID
		return string(e.Name) != name
	})
	return nid, at, err
}
