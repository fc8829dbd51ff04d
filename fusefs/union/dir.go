package union

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// A dent is an entry of a directory of the upper directory.
type dent struct {
	name string
	ino  uint64
	typ  uint8 // DT_ value, maybe DT_UNKNOWN
}

// readDents gives all entries of a directory but "." and "..".
func readDents(fd int) ([]dent, error) { return readDentsAt(fd, ".") }

func readDentsAt(dirfd int, name string) (all []dent, err error) {
	fd, err := again(func() (int, error) { return unix.Openat(dirfd, name, openDir, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	for {
		n, err := again(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return all, nil
		}
		// struct linux_dirent64, see getdents(2)
		const nameOff = 19
		for b := buf[:n]; len(b) >= nameOff; {
			length := int(binary.NativeEndian.Uint16(b[16:]))
			if length < nameOff || length > len(b) {
				return nil, unix.EIO
			}
			name, _, _ := bytes.Cut(b[nameOff:length], []byte{0})
			if s := string(name); s != "." && s != ".." {
				all = append(all, dent{s, binary.NativeEndian.Uint64(b), b[18]})
			}
			b = b[length:]
		}
	}
}

// A listed entry is what a directory stream tells of a name. Its place in the stream
// is a hash of its name, and streams are in that order: so a stream can be continued
// whatever came and went meanwhile, nobody need open a directory, and the kernel can
// give one process what it read for another.
type listed struct {
	off  uint64
	ino  uint64
	typ  uint8
	name string
}

// The first two places are for "." and "..".
const firstOff = 2

func nameOff(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()>>1 | 1<<8
}

// list gives what is seen in a directory, in the order of streams.
func (u *FS) list(dir *ref) ([]listed, error) {
	from, merged := dir.in, true
	var ents []listed
	hidden := map[string]struct{}{}
	if dir.n != nil {
		merged = dir.n.merged
		d, err := u.dirfd(dir.n)
		if err != nil {
			return nil, err
		}
		defer u.dirs.put(d)
		dents, err := readDents(d.fd)
		if err != nil {
			return nil, err
		}
		for i := range dents {
			if merged {
				hidden[dents[i].name] = struct{}{}
			}
			if e, ok := u.listUpper(dir, d.fd, &dents[i]); ok {
				ents = append(ents, e)
			}
		}
		if merged {
			if from, err = u.view.Inode(dir.n.lower); err != nil {
				return nil, err
			}
		}
	}
	if merged {
		err := u.view.ReadDir(&from, func(d erofs.Dirent) bool {
			if _, ok := hidden[string(d.Name)]; !ok {
				name := string(d.Name)
				ents = append(ents, listed{nameOff(name), uint64(d.NID), d.Type, name})
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(ents, func(a, b listed) int {
		switch {
		case a.off < b.off:
			return -1
		case a.off > b.off:
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	for i := 1; i < len(ents); i++ {
		ents[i].off = max(ents[i].off, ents[i-1].off+1)
	}
	return ents, nil
}

// listUpper tells of an entry of the upper directory, unless it is a whiteout.
func (u *FS) listUpper(dir *ref, fd int, d *dent) (listed, bool) {
	p := place{fd: fd, name: d.name}
	if d.typ == unix.DT_CHR || d.typ == unix.DT_UNKNOWN || d.typ == unix.DT_REG && dir.n.xwhite.Load() {
		var st unix.Stat_t
		if p.stat(&st) != nil || u.marks.isWhiteout(dir.n, &st, p) {
			return listed{}, false
		}
		d.typ = uint8(st.Mode & unix.S_IFMT >> 12)
	}
	e := listed{nameOff(d.name), d.ino ^ upperBit, d.typ, d.name}
	u.tab.Lock()
	n := u.byIno[d.ino]
	u.tab.Unlock()
	switch {
	case n != nil:
		e.ino = n.shown()
	case d.typ == unix.DT_DIR:
		if in, ok, err := u.below(dir, d.name); err == nil && ok && in.IsDir() {
			e.ino = uint64(in.NID)
		}
	case u.origins.Load():
		if nid, ok := u.readOrigin(p); ok {
			e.ino = uint64(nid)
		}
	}
	return e, true
}

// listCache has the lists of directories that streams were read from last.
type listCache struct {
	mu   sync.Mutex
	byID map[uint64]*list.Element
	lru  list.List
}

type cachedList struct {
	id, version uint64
	ents        []listed
}

const maxLists = 32

func (c *listCache) init() { c.byID = map[uint64]*list.Element{} }

func (c *listCache) get(id uint64) *cachedList {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byID[id]
	if e == nil {
		return nil
	}
	c.lru.MoveToFront(e)
	return e.Value.(*cachedList)
}

func (c *listCache) put(l *cachedList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[l.id]; e != nil {
		c.lru.Remove(e)
	}
	c.byID[l.id] = c.lru.PushFront(l)
	for c.lru.Len() > maxLists {
		e := c.lru.Back()
		delete(c.byID, e.Value.(*cachedList).id)
		c.lru.Remove(e)
	}
}

// stream gives the list for a stream that is at an offset. One that has begun may go
// on with what was there at its beginning.
func (u *FS) stream(dir *ref, off uint64) ([]listed, error) {
	id, version := dir.id(u), uint64(0)
	if dir.n != nil {
		version = 1 + dir.n.version.Load()
	}
	if c := u.lists.get(id); c != nil && (c.version == version || off > firstOff) {
		return c.ents, nil
	}
	ents, err := u.list(dir)
	if err == nil {
		u.lists.put(&cachedList{id, version, ents})
	}
	return ents, err
}

// OpenDir says that nobody need ask: streams need no handle.
func (u *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// ReadDir goes on with a stream.
func (u *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return status(u.readdir(in, func(_ *ref, e fuse.DirEntry, _ bool) bool { return out.AddDirEntry(e) }))
}

// ReadDirPlus goes on with a stream and looks up what it gives.
func (u *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return status(u.readdir(in, func(dir *ref, e fuse.DirEntry, dot bool) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		*entry = fuse.EntryOut{}
		if !dot && u.lookup(dir, e.Name, entry) != nil || entry.NodeId == 0 {
			*entry = fuse.EntryOut{Attr: fuse.Attr{Ino: e.Ino, Mode: e.Mode}}
		}
		return true
	}))
}

func (u *FS) readdir(in *fuse.ReadIn, add func(dir *ref, e fuse.DirEntry, dot bool) bool) error {
	u.mu.RLock()
	defer u.mu.RUnlock()
	dir, err := u.ref(in.NodeId)
	if err != nil {
		return err
	}
	ents, err := u.stream(&dir, in.Offset)
	if err != nil {
		return err
	}
	for off, name := range []string{".", ".."} {
		if in.Offset <= uint64(off) {
			e := fuse.DirEntry{Name: name, Ino: u.dotIno(&dir, name), Mode: unix.S_IFDIR, Off: uint64(off) + 1}
			if !add(&dir, e, true) {
				return nil
			}
		}
	}
	i := sort.Search(len(ents), func(i int) bool { return ents[i].off > in.Offset })
	for _, e := range ents[i:] {
		if !add(&dir, fuse.DirEntry{Name: e.name, Ino: e.ino, Mode: uint32(e.typ) << 12, Off: e.off}, false) {
			return nil
		}
	}
	return nil
}

// dotIno is the number of a directory itself, or of the one it is in.
func (u *FS) dotIno(dir *ref, name string) uint64 {
	if dir.n == nil {
		if d, err := u.view.Lookup(&dir.in, name); err == nil {
			return u.lowerID(d.NID)
		}
		return 0
	}
	if name == "." || dir.n == u.root {
		return dir.n.shown()
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	if len(dir.n.names) == 0 {
		return 0
	}
	return dir.n.names[0].dir.shown()
}

// FsyncDir waits until the names in a directory are on the disk.
func (u *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := u.node(in.NodeId)
	if n == nil || u.volatile {
		return fuse.OK
	}
	fd, err := u.openDirNode(n)
	if err != nil {
		return status(err)
	}
	err = retry(func() error { return unix.Fsync(fd) })
	return status(errors.Join(err, unix.Close(fd)))
}

func (u *FS) openDirNode(n *node) (int, error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	d, err := u.dirfd(n)
	if err != nil {
		return -1, err
	}
	defer u.dirs.put(d)
	return again(func() (int, error) { return unix.Openat(d.fd, ".", openDir, 0) })
}
