package union

import "golang.org/x/sys/unix"

// mergedLinks is the link count of a merged directory: those of its subdirectories that are
// in the upper directory are counted there, the others are counted once, when somebody asks.
// The caller holds mu for reading; what changes the number holds it for writing.
func (u *FS) mergedLinks(n *node, upper uint32) uint32 {
	if s := n.subdirs.Load(); s > 0 {
		return upper + uint32(s) - 1
	}
	s, err := u.countBelow(n)
	if err != nil {
		return 1 // which stands for not counted
	}
	n.subdirs.Store(s + 1)
	return upper + uint32(s)
}

// countBelow counts the directories of the layers for which nothing stands in the upper
// directory.
func (u *FS) countBelow(n *node) (int64, error) {
	in, err := u.view.Inode(n.lower)
	if err != nil || in.Nlink <= 2 {
		return 0, err
	}
	d, err := u.dirfd(n)
	if err != nil {
		return 0, err
	}
	defer u.dirs.put(d)
	dents, err := readDents(d.fd)
	count := int64(in.Nlink) - 2
	for i := range dents {
		below, ok, err := u.below(&ref{n: n}, dents[i].name)
		if err != nil {
			return 0, err
		}
		if ok && below.Mode&unix.S_IFMT == unix.S_IFDIR {
			count--
		}
	}
	return count, err
}

// showsLess is called when something of the upper directory has taken the place of a
// directory of the layers.
func (n *node) showsLess() {
	if n.subdirs.Load() > 1 {
		n.subdirs.Add(-1)
	}
}
