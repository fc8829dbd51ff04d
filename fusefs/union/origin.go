package union

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// originAttr is the attribute, behind overlayfs' prefix, that says on a copy which
// file of the layers it was made of: the index and the number in it. The packer
// leaves it out with overlayfs' own.
const originAttr = "plash.origin"

// originOf is what the attribute of all copies of a view's files begins with.
func originOf(view *cas.View) string {
	name := strings.TrimSuffix(filepath.Base(view.Path()), ".erofs")
	return name + "/"
}

func (u *FS) originValue(n erofs.NID) string { return fmt.Sprintf("%s%d", u.origin, n) }

// readOrigin tells what a file in the upper directory is a copy of.
func (u *FS) readOrigin(p place) (erofs.NID, bool) {
	var buf [256]byte
	n, err := p.getxattr(u.marks.prefix+originAttr, buf[:])
	if err != nil {
		return 0, false
	}
	var nid uint64
	number, ok := strings.CutPrefix(string(buf[:n]), u.origin)
	if _, err := fmt.Sscanf(number, "%d", &nid); !ok || err != nil || nid >= upperBit {
		return 0, false
	}
	_, err = u.view.Inode(erofs.NID(nid))
	return erofs.NID(nid), err == nil
}
