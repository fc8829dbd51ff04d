package overlay

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// minClone is how long a file must be for sharing its blocks to be quicker than
// copying them.
const minClone = 32 << 10

// A donor is another tree of the same index, whose files share their blocks with
// copies of them, on filesystems that can (btrfs, xfs, bcachefs). Programs may be
// writing to it meanwhile: a file is taken only if it is as the manifest has it,
// before and after.
type donor struct {
	root   int
	stamps map[erofs.NID]stamp // of regular files; nil: the tree never changes
	unable atomic.Bool
}

func newDonor(root int, ix *erofs.Image, m *Manifest) (*donor, error) {
	d := &donor{root: root}
	if m == nil {
		return d, nil
	}
	d.stamps = map[erofs.NID]stamp{}
	for dir, stamps := range m.dirs {
		in, err := ix.Inode(dir)
		if err != nil {
			return nil, err
		}
		i := 0
		err = ix.ReadDir(&in, func(e erofs.Dirent) bool {
			if i < len(stamps) && e.Type == unix.DT_REG {
				d.stamps[e.NID] = stamps[i]
			}
			i++
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// clone gives an empty file the content of the donor's file at path; false if that
// cannot be.
func (d *donor) clone(path string, fd int, in *erofs.Inode) (bool, error) {
	if d == nil || in.Size < minClone || d.unable.Load() {
		return false, nil
	}
	dir, name := splitName(path)
	at, err := openDirBelow(d.root, dir)
	if err != nil {
		return false, nil // a program is changing the donor
	}
	defer unix.Close(at)
	src, err := openFile(at, name)
	if err != nil {
		return false, nil
	}
	defer unix.Close(src)
	if !d.pristine(src, in) {
		return false, nil
	}
	if err := unix.IoctlFileClone(fd, src); err != nil {
		d.unable.Store(true)
		return false, nil
	}
	if d.pristine(src, in) {
		return true, nil
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		return false, fmt.Errorf("take back what was cloned: %w", err)
	}
	return false, nil
}

func (d *donor) pristine(fd int, in *erofs.Inode) bool {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st) != nil || st.Size != uint64(in.Size) || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	return d.stamps == nil || d.stamps[in.NID] == stampOf(&st)
}
