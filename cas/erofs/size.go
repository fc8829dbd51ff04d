package erofs

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// DataSize is how many bytes the regular files of the tree have, without holes: what there is
// to copy. A file with several names counts once. It reads all inodes.
func (im *Image) DataSize(ctx context.Context) (int64, error) {
	s := sizer{im: im, dirs: []NID{im.root}, linked: map[NID]bool{}}
	for len(s.dirs) > 0 {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		dir := s.dirs[len(s.dirs)-1]
		s.dirs = s.dirs[:len(s.dirs)-1]
		if err := s.dir(dir); err != nil {
			return 0, err
		}
	}
	return s.size, nil
}

type sizer struct {
	im     *Image
	dirs   []NID        // that are still to be read
	linked map[NID]bool // files of several names, once they are counted
	size   int64
}

func (s *sizer) dir(nid NID) error {
	in, err := s.im.Inode(nid)
	if err != nil {
		return err
	}
	var failed error
	err = s.im.ReadDir(&in, func(e Dirent) bool {
		switch e.Type {
		case unix.DT_DIR:
			s.dirs = append(s.dirs, e.NID)
		case unix.DT_REG:
			failed = s.file(e.NID)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

func (s *sizer) file(nid NID) error {
	in, err := s.im.Inode(nid)
	if err != nil {
		return err
	}
	if in.Nlink > 1 {
		if s.linked[nid] {
			return nil
		}
		s.linked[nid] = true
	}
	return s.im.Extents(&in, func(e Extent) bool {
		s.size += e.Len
		return true
	})
}
