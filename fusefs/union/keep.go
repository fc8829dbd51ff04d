package union

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Whoever has looked a name up may open the file after the name is gone, and whoever has
// it open may do all to it but find it by name. So until the kernel forgets a file,
// something must lead to it. A descriptor is cheapest, and the only thing that
// directories can have; where many are kept, files get a name in the work directory.

// maxKept is how many descriptors may be held of files without names.
func maxKept() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return 64
	}
	return int(min(lim.Cur/4, 4096))
}

// keep makes sure of a node whose known names may all go away. If that fails, all that
// is lost is to open or change a file after its last name is gone.
func (u *FS) keep(n, dir *node, name string) {
	u.tab.Lock()
	need := n.keep == 0 && !n.hidden && len(n.names) <= 1 && (n.lookups > 0 || n.pinned || n.kids > 0)
	many := u.kept >= u.maxKept
	u.tab.Unlock()
	if !need {
		return
	}
	d, err := u.dirfd(dir)
	if err != nil {
		return
	}
	defer u.dirs.put(d)
	fd := -1
	if err = unix.EMFILE; !many || n.isDir() {
		fd, err = u.openNoFollow(d.fd, name)
	}
	hidden := false
	if err != nil && !n.isDir() {
		hidden = unix.Linkat(d.fd, name, u.work, n.hiddenName(), 0) == nil
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	if n.hidden = hidden; err == nil {
		u.setKeep(n, fd)
	}
}

func (u *FS) openNoFollow(dirfd int, name string) (int, error) {
	fd, err := unix.Openat(dirfd, name, openPath, 0)
	if errors.Is(err, unix.EMFILE) {
		u.dirs.shrink()
		fd, err = unix.Openat(dirfd, name, openPath, 0)
	}
	return fd, err
}

// setKeep notes what is kept of a node. The caller holds tab.
func (u *FS) setKeep(n *node, fd int) {
	n.keep = fd
	u.kept++
}

func (n *node) hiddenName() string { return "#gone-" + strconv.FormatUint(n.id, 10) }

// unkeep is for a node that kept its name after all.
func (u *FS) unkeep(n *node) {
	u.tab.Lock()
	defer u.tab.Unlock()
	if len(n.names) > 0 && n != u.root {
		u.drop(n)
	}
}

// drop gives up what is kept of a node. The caller holds tab.
func (u *FS) drop(n *node) {
	if n.keep > 0 {
		unix.Close(n.keep)
		n.keep = 0
		u.kept--
	}
	u.unhide(n)
}

// unhide takes away a node's name in the work directory, and tells whether it had one.
// The caller holds tab.
func (u *FS) unhide(n *node) bool {
	if !n.hidden {
		return false
	}
	n.hidden = false
	// Left behind, it is cleared away by the next union.
	return unix.Unlinkat(u.work, n.hiddenName(), 0) == nil
}
