package union

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// A file of the layers that nothing was done to has no node: its id is its number in
// the index (1 for the root), and all about it is read from there. So looking
// at a large tree takes no memory here. A node is for what is in the upper
// directory and the kernel knows, or lies on the way to that.
type node struct {
	id     uint64
	typ    uint32    // S_IFMT bits
	ino    uint64    // in the upper directory
	lower  erofs.NID // with origin: what of the index it continues, whose number it shows
	origin bool
	merged bool        // a directory that shows what is below it
	xwhite atomic.Bool // a directory in which whiteouts may be attributes

	// Under FS.tab. names are those that are known; the first serves to get at it.
	lookups int64
	kids    int       // nodes whose names lie in it
	pinned  bool      // the kernel knew it before it was a node, so lookups are not all: see forget.go
	stays   bool      // if it was forgotten, it would not be found to be the same again
	told    time.Time // when the kernel was told of it last, if pinned
	closing bool      // the kernel does not know it, but it was still open here
	names   []alias
	gone    bool         // no name is left
	keep    int          // an O_PATH descriptor where no name leads to it; 0: none
	hidden  bool         // it has a name in the work directory instead, and no other that is known
	last    *unix.Stat_t // what it was when its last name went, if nothing leads to it

	version atomic.Uint64 // of a directory: counts changes
	subdirs atomic.Int64  // of a merged directory: directories of the layers that it shows, and one; 0: unknown
	bare    atomic.Bool   // it has no extended attributes
	defACL  atomic.Int32  // a directory's default ACL: 0 unknown, 1 none, 2 there is one
	watched atomic.Bool   // it may have bits that go when the kernel writes to it: see privileges.go

	io     sync.Mutex
	file   *openFile
	cached int  // handles whose data the kernel caches
	passed int  // handles whose data the kernel takes from the upper file
	stale  bool // what the kernel has cached may not be what the file holds
}

type alias struct {
	dir  *node
	name string
}

// upperBit tells numbers of files that are only in the upper directory from those of
// the index, which are below 2^36 (2^32 blocks of 16 inodes each).
const upperBit = 1 << 48

func (u *FS) lowerID(n erofs.NID) uint64 {
	if n == u.view.Root() {
		return fuse.FUSE_ROOT_ID
	}
	return uint64(n)
}

// shown is the inode number that programs see.
func (n *node) shown() uint64 {
	switch {
	case n.id == fuse.FUSE_ROOT_ID:
		return n.id // the kernel has no other number for it
	case n.origin:
		return uint64(n.lower)
	}
	return n.ino ^ upperBit
}

func (n *node) isDir() bool { return n.typ == unix.S_IFDIR }

// A ref is what the kernel refers to: a node, or an inode of the index.
type ref struct {
	n  *node
	in erofs.Inode
}

func (r *ref) id(u *FS) uint64 {
	if r.n != nil {
		return r.n.id
	}
	return u.lowerID(r.in.NID)
}

func (u *FS) node(id uint64) *node {
	u.tab.Lock()
	defer u.tab.Unlock()
	return u.byID[id]
}

// known gives the node of a number, or nil if it stands for a file of the layers.
func (u *FS) known(id uint64) (*node, error) {
	u.tab.Lock()
	defer u.tab.Unlock()
	n := u.byID[id]
	if n == nil && (id >= upperBit || u.left.has(id)) {
		return nil, unix.ESTALE
	}
	return n, nil
}

func (u *FS) ref(id uint64) (ref, error) {
	n, err := u.known(id)
	if n != nil || err != nil {
		return ref{n: n}, err
	}
	in, err := u.view.Inode(erofs.NID(id))
	return ref{in: in}, err
}

// adopt gives the node of a file in the upper directory a further name, and makes it
// if there is none.
func (u *FS) adopt(dir *node, name string, st *unix.Stat_t, fresh func(n *node)) *node {
	u.tab.Lock()
	defer u.tab.Unlock()
	n := u.byIno[st.Ino]
	if n == nil {
		n = &node{typ: st.Mode & unix.S_IFMT, ino: st.Ino}
		if fresh != nil {
			fresh(n)
		}
		u.enter(n)
	}
	n.addName(dir, name)
	return n
}

// enter puts a new node into the tables. The caller holds tab.
func (u *FS) enter(n *node) {
	if n.origin {
		n.id = u.lowerID(n.lower)
		if u.byID[n.id] != nil { // two copies of one file, made outside
			n.origin = false
		}
	}
	if !n.origin {
		u.nextID++
		n.id = u.nextID
	}
	n.cached += u.lowerOpen[n.id]
	delete(u.lowerOpen, n.id)
	u.left.remove(n.id)
	u.byID[n.id] = n
	if n.pinned {
		n.told = time.Now() // or shortly before
	}
	if !n.gone {
		u.byIno[n.ino] = n
	}
}

// addName notes a name of a node. The caller holds tab.
func (n *node) addName(dir *node, name string) {
	if dir == nil || slices.Contains(n.names, alias{dir, name}) {
		return
	}
	n.names = append(n.names, alias{dir, name})
	dir.kids++
}

func (u *FS) loseName(n, dir *node, name string) {
	u.tab.Lock()
	defer u.tab.Unlock()
	if i := slices.Index(n.names, alias{dir, name}); i >= 0 {
		n.names = slices.Delete(n.names, i, i+1)
		dir.kids--
		u.tidy(dir)
	}
}

// moved is called when a node has changed its name.
func (u *FS) moved(n, dir *node, name string, newDir *node, newName string) {
	u.tab.Lock()
	defer u.tab.Unlock()
	n.addName(newDir, newName)
	if i := slices.Index(n.names, alias{dir, name}); i >= 0 {
		n.names = slices.Delete(n.names, i, i+1)
		dir.kids--
		u.tidy(dir)
	}
}

// vanish is called when the last name of a node is gone.
func (u *FS) vanish(n *node, st *unix.Stat_t) {
	u.tab.Lock()
	defer u.tab.Unlock()
	n.gone = true
	if n.keep == 0 && !n.hidden && n.lookups > 0 {
		last := *st
		last.Nlink = 0
		n.last = &last
	}
	if u.byIno[n.ino] == n {
		delete(u.byIno, n.ino)
	}
	u.dirs.forget(n)
	u.tidy(n)
}
