package union

import (
	"errors"
	"slices"
	"sort"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// below looks up what the layers have of a name in a directory, if they show through.
func (u *FS) below(dir *ref, name string) (in erofs.Inode, ok bool, err error) {
	from := dir.in
	if dir.n != nil {
		if !dir.n.merged {
			return in, false, nil
		}
		if from, err = u.view.Inode(dir.n.lower); err != nil {
			return in, false, err
		}
	}
	d, err := u.view.Lookup(&from, name)
	if errors.Is(err, erofs.ErrNotExist) {
		return in, false, nil
	}
	if err == nil {
		in, err = u.view.Inode(d.NID)
	}
	return in, err == nil, err
}

func (u *FS) lowerAttr(a *fuse.Attr, in *erofs.Inode) {
	*a = fuse.Attr{
		Ino: uint64(in.NID), Size: uint64(in.Size), Blocks: (uint64(in.Size) + 511) / 512,
		Mode: in.Mode, Nlink: in.Nlink, Owner: fuse.Owner{Uid: in.UID, Gid: in.GID},
		Rdev: uint32(in.Rdev), Blksize: 4096,
		Atime: uint64(in.MtimeSec), Mtime: uint64(in.MtimeSec), Ctime: uint64(in.MtimeSec),
		Atimensec: in.MtimeNsec, Mtimensec: in.MtimeNsec, Ctimensec: in.MtimeNsec,
	}
	u.tab.Lock()
	if _, gone := u.lowerGone[u.lowerID(in.NID)]; gone {
		a.Nlink = 0
	}
	u.tab.Unlock()
}

// nameMap finds the names of a file by its number: it is needed to copy it up. It is
// made when it is first asked, in one walk over the index, and takes a few bytes for each
// directory, since the inodes of a directory's entries lie together, and for each hard link.
type nameMap struct {
	view  *cas.View
	once  sync.Once
	err   error
	runs  []run
	links map[erofs.NID][]erofs.NID // of files with several names: the directories
}

// A run says that the files from number on, until the next run's, are in dir.
type run struct{ from, dir erofs.NID }

func (m *nameMap) fill() {
	m.links = map[erofs.NID][]erofs.NID{}
	var all []run
	dirs := []erofs.NID{m.view.Root()}
	for len(dirs) > 0 && m.err == nil {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		in, err := m.view.Inode(dir)
		if err != nil {
			m.err = err
			return
		}
		m.err = m.view.ReadDir(&in, func(d erofs.Dirent) bool {
			if d.Type == unix.DT_DIR {
				dirs = append(dirs, d.NID)
				return true
			}
			in, err := m.view.Inode(d.NID)
			if err != nil {
				m.err = err
				return false
			}
			if in.Nlink > 1 {
				m.links[d.NID] = append(m.links[d.NID], dir)
			} else {
				all = append(all, run{d.NID, dir})
			}
			return true
		})
	}
	slices.SortFunc(all, func(a, b run) int { return int(int64(a.from) - int64(b.from)) })
	m.runs = slices.Clone(slices.CompactFunc(all, func(a, b run) bool { return a.dir == b.dir }))
}

// A lowerName is a name of a file in the layers.
type lowerName struct {
	dir  erofs.NID
	name string
}

// of gives all names that a file which is no directory has in the layers.
func (m *nameMap) of(in *erofs.Inode) ([]lowerName, error) {
	m.once.Do(m.fill)
	if m.err != nil {
		return nil, m.err
	}
	dirs := m.links[in.NID]
	if dirs == nil {
		i := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].from > in.NID })
		if i == 0 {
			return nil, unix.ESTALE
		}
		dirs = []erofs.NID{m.runs[i-1].dir}
	}
	var names []lowerName
	for _, dir := range slices.Compact(slices.Sorted(slices.Values(dirs))) {
		found, err := m.in(dir, in.NID)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	return names, nil
}

// in lists the names that a file has in a directory.
func (m *nameMap) in(dir, file erofs.NID) (names []lowerName, err error) {
	in, err := m.view.Inode(dir)
	if err != nil {
		return nil, err
	}
	err = m.view.ReadDir(&in, func(d erofs.Dirent) bool {
		if d.NID == file {
			names = append(names, lowerName{dir, string(d.Name)})
		}
		return true
	})
	return names, err
}

// parent is the directory that a directory lies in.
func (m *nameMap) parent(dir erofs.NID) (erofs.NID, error) {
	in, err := m.view.Inode(dir)
	if err != nil {
		return 0, err
	}
	d, err := m.view.Lookup(&in, "..")
	return d.NID, err
}

// trail gives the names that lead from the root to a directory of the layers.
func (m *nameMap) trail(dir erofs.NID) ([]lowerName, error) {
	var names []lowerName
	for dir != m.view.Root() {
		up, err := m.parent(dir)
		if err != nil {
			return nil, err
		}
		found, err := m.in(up, dir)
		if err != nil {
			return nil, err
		}
		if len(found) != 1 || len(names) > 1<<16 {
			return nil, erofs.ErrCorrupt
		}
		names = append(names, lowerName{dir, found[0].name})
		dir = up
	}
	slices.Reverse(names)
	return names, nil
}
