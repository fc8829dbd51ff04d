package overlay

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// canWhiteout tells whether the store is where whiteouts can be made. Overlayfs lets no one
// make what would be its own (ovl_mknod in fs/overlayfs/dir.c), and that is what the root of most
// containers is. (TestMatrix covers this: `docker run --cap-add SYS_ADMIN`.)
func canWhiteout(s *cas.Store) bool {
	scratch, err := s.Scratch("whiteout")
	if err != nil {
		return false
	}
	err = unix.Mknod(filepath.Join(scratch.Path(), "w"), unix.S_IFCHR, 0)
	return scratch.Remove() == nil && err == nil
}
