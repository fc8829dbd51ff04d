package erofs

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// A DirPos is a place in a directory's stream of entries: the number of a block in
// the upper bits, that of an entry in the block in the lower ones. The zero DirPos is
// the beginning.
type DirPos uint64

// dirPosBits hold the number of an entry: a block has at most 39, as each takes
// direntSize and a name.
const dirPosBits = 6

// ReadDirAt calls yield for each entry of a directory from pos on, "." and ".."
// among them, until it returns false. With each entry comes the place of what
// follows it. A place behind the end is the end; going on from a place takes no
// longer the farther it is.
func (im *Image) ReadDirAt(dir *Inode, pos DirPos, yield func(e Dirent, next DirPos) bool) error {
	if !dir.IsDir() {
		return fmt.Errorf("inode %d: %w", dir.NID, unix.ENOTDIR)
	}
	var last []byte
	first := int(pos & (1<<dirPosBits - 1))
	for i := int64(pos >> dirPosBits); i < (dir.Size+BlockSize-1)/BlockSize; i++ {
		d, err := im.dirBlock(dir, i)
		if err != nil {
			return err
		}
		for j := first; j < d.n; j++ {
			e, err := d.entry(j)
			switch {
			case err != nil:
				return err
			case bytes.Compare(last, e.Name) >= 0:
				return fmt.Errorf("directory %d: %w: %q after %q", dir.NID, ErrCorrupt, e.Name, last)
			}
			last = e.Name
			next := DirPos(i)<<dirPosBits | DirPos(j+1)
			if j+1 == d.n {
				next = DirPos(i+1) << dirPosBits
			}
			if !yield(e, next) {
				return nil
			}
		}
		first = 0
	}
	return nil
}
