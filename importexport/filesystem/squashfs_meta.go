package filesystem

import (
	"fmt"
	"strings"

	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// A metaWriter gathers metadata in blocks, which are compressed one by one.
type metaWriter struct {
	compress func(dst, src []byte) []byte
	out      []byte // finished blocks
	block    []byte // the one that is being filled
	starts   []int  // where the blocks begin
}

// ref is a reference to what is written next: the block's place, and the offset in it.
func (m *metaWriter) ref() uint64 { return uint64(len(m.out))<<squashRefShift | uint64(len(m.block)) }

func (m *metaWriter) write(b []byte) {
	for len(b) > 0 {
		n := min(len(b), squashMeta-len(m.block))
		m.block = append(m.block, b[:n]...)
		b = b[n:]
		if len(m.block) == squashMeta {
			m.finish()
		}
	}
}

// finish ends the current block.
func (m *metaWriter) finish() {
	if len(m.block) == 0 {
		return
	}
	m.starts = append(m.starts, len(m.out))
	head := len(m.out)
	m.out = m.compress(append(m.out, 0, 0), m.block)
	size := len(m.out) - head - 2
	if size >= len(m.block) {
		m.out = append(m.out[:head+2], m.block...)
		size = len(m.block) | squashMetaRaw
	}
	le.PutUint16(m.out[head:], uint16(size))
	m.block = m.block[:0]
}

// metadata writes what follows the data: inodes, directories, and tables.
func (w *squashWriter) metadata() error {
	// What directories name has its place before them; those within before those above.
	for _, dirs := range []bool{false, true} {
		for i := range w.nodes {
			if dirs {
				i = len(w.nodes) - 1 - i
			}
			n := w.nodes[i]
			if n.IsDir() != dirs {
				continue
			}
			b, err := w.inode(n, &w.files[i])
			if err != nil {
				return fmt.Errorf("/%s: %w", n.path, err)
			}
			w.refs[i] = w.inodes.ref()
			w.inodes.write(b)
		}
	}
	w.inodes.finish()
	w.dirs.finish()
	if len(w.inodes.out) > squashMaxTable || len(w.dirs.out) > squashMaxTable {
		return fmt.Errorf("%w: %d bytes of inodes, %d of directories", ErrLimit, len(w.inodes.out), len(w.dirs.out))
	}
	s := &squashTables{w: w}
	s.inodes = s.put(w.inodes.out)
	s.dirs = s.put(w.dirs.out)
	s.fragments = s.fragmentTable()
	s.ids = s.idTable()
	s.xattrs = s.xattrTable()
	if s.err != nil {
		return s.err
	}
	if err := w.im.Truncate(roundUp(w.at, 4096)); err != nil { // loop devices have whole sectors
		return err
	}
	_, err := w.im.WriteAt(w.super(s), 0)
	return err
}

// Types of inodes; those with attributes, several names or great sizes are 7 higher.
const (
	squashDir = 1 + iota
	squashReg
	squashSymlink
	squashBlockDevice
	squashCharDevice
	squashFifo
	squashSocket
	squashExtended = 7
)

func squashType(n *node) uint16 {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return squashDir
	case unix.S_IFREG:
		return squashReg
	case unix.S_IFLNK:
		return squashSymlink
	case unix.S_IFBLK:
		return squashBlockDevice
	case unix.S_IFCHR:
		return squashCharDevice
	case unix.S_IFIFO:
		return squashFifo
	}
	return squashSocket
}

// inode makes the inode of a node, always in the form that has everything but for plain files,
// which are most.
func (w *squashWriter) inode(n *node, f *squashFile) ([]byte, error) {
	uid, gid := w.id(n.UID), w.id(n.GID)
	if len(w.idList) > squashMaxIDs {
		return nil, fmt.Errorf("%w: files of more than %d users and groups", ErrLimit, squashMaxIDs)
	}
	xattrs, err := w.xattrs.of(w.view, &n.Inode)
	if err != nil {
		return nil, err
	}
	plain := n.IsRegular() && n.nlink == 1 && xattrs == squashNone && f.start < 1<<32 && n.Size < 1<<32 && f.holes == 0
	kind := squashType(n)
	if !plain {
		kind += squashExtended
	}
	b := le.AppendUint16(nil, kind)
	b = le.AppendUint16(b, uint16(n.Mode&0o7777))
	b = le.AppendUint16(b, uid)
	b = le.AppendUint16(b, gid)
	b = le.AppendUint32(b, uint32(max(0, min(n.MtimeSec, squashMaxTime))))
	b = le.AppendUint32(b, n.number)
	switch {
	case n.IsDir():
		return w.appendDir(b, n, xattrs)
	case n.IsRegular():
		return appendSquashFile(b, n, f, plain, xattrs), nil
	case n.IsSymlink():
		target, err := w.view.Readlink(&n.Inode)
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, uint32(len(target)))
		return le.AppendUint32(append(b, target...), xattrs), err
	}
	b = le.AppendUint32(b, n.nlink)
	if kind == squashCharDevice+squashExtended || kind == squashBlockDevice+squashExtended {
		b = le.AppendUint32(b, deviceNumber(n.Rdev))
	}
	return le.AppendUint32(b, xattrs), nil
}

func appendSquashFile(b []byte, n *node, f *squashFile, plain bool, xattrs uint32) []byte {
	if plain {
		b = le.AppendUint32(b, uint32(f.start))
		b = le.AppendUint32(b, f.fragment)
		b = le.AppendUint32(b, f.offset)
		b = le.AppendUint32(b, uint32(n.Size))
	} else {
		// The kernel takes the size less the holes for what the file takes.
		b = le.AppendUint64(b, uint64(f.start))
		b = le.AppendUint64(b, uint64(n.Size))
		b = le.AppendUint64(b, uint64(f.holes))
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, f.fragment)
		b = le.AppendUint32(b, f.offset)
		b = le.AppendUint32(b, xattrs)
	}
	for _, size := range f.sizes {
		b = le.AppendUint32(b, size)
	}
	return b
}

// appendDir writes the entries of a directory and makes the rest of its inode.
func (w *squashWriter) appendDir(b []byte, n *node, xattrs uint32) ([]byte, error) {
	at := w.dirs.ref()
	size, index, count := w.dirEntries(n)
	size += 3 // as if "." and ".." were in it
	if size > squashMaxNames || count > squashMaxIndex {
		return nil, fmt.Errorf("%w: a directory of %d bytes", ErrLimit, size)
	}
	b = le.AppendUint32(b, n.nlink)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(at>>squashRefShift))
	b = le.AppendUint32(b, n.parent.number)
	b = le.AppendUint16(b, uint16(count))
	b = le.AppendUint16(b, uint16(at))
	b = le.AppendUint32(b, xattrs)
	return append(b, index...), nil
}

// dirEntries writes runs of entries: a header with what the inodes have in common, and the
// entries. A run that begins in a metadata block of its own is in the index, by which the
// kernel finds a name without reading the blocks before.
func (w *squashWriter) dirEntries(n *node) (size int64, index []byte, count int) {
	first := w.dirs.ref() >> squashRefShift
	for rest := n.entries; len(rest) > 0; {
		at := w.dirs.ref()
		if block := at >> squashRefShift; block != first {
			first = block
			index = le.AppendUint32(index, uint32(size))
			index = le.AppendUint32(index, uint32(block))
			index = le.AppendUint32(index, uint32(len(rest[0].name)-1))
			index = append(index, rest[0].name...)
			count++
		}
		b, k := w.dirRun(rest, squashMeta-int(uint16(at)))
		w.dirs.write(b)
		size += int64(len(b))
		rest = rest[k:]
	}
	return size, index, count
}

// dirRun makes a run of as many entries as may have one header, and begin within room bytes.
func (w *squashWriter) dirRun(entries []entry, room int) (b []byte, k int) {
	const mostEntries = 256
	block, base := w.refs[entries[0].number-1]>>squashRefShift, entries[0].number
	b = make([]byte, 12)
	for _, e := range entries {
		diff := int64(e.number) - int64(base)
		if k == mostEntries || k > 0 && len(b) >= room || w.refs[e.number-1]>>squashRefShift != block || diff != int64(int16(diff)) {
			break
		}
		b = le.AppendUint16(b, uint16(w.refs[e.number-1]))
		b = le.AppendUint16(b, uint16(diff))
		b = le.AppendUint16(b, squashType(e.node))
		b = le.AppendUint16(b, uint16(len(e.name)-1))
		b = append(b, e.name...)
		k++
	}
	le.PutUint32(b[0:], uint32(k-1))
	le.PutUint32(b[4:], uint32(block))
	le.PutUint32(b[8:], base)
	return b, k
}

// id gives the number that stands for an owner.
func (w *squashWriter) id(owner uint32) uint16 {
	i, ok := w.ids[owner]
	if !ok {
		i = uint16(len(w.idList))
		w.ids[owner] = i
		w.idList = append(w.idList, owner)
	}
	return i
}

// squashXattrs are the sets of attributes, each once.
type squashXattrs struct {
	pairs metaWriter
	known map[string]uint32
	list  []byte // of references to the sets
	lost  bool   // some do not fit the format
}

// squashPrefixes are the prefixes of names that the format knows, by their numbers.
var squashPrefixes = []string{"user.", "trusted.", "security."}

// of gives the number of an inode's set of attributes.
func (x *squashXattrs) of(v interface {
	Xattrs(*erofs.Inode) ([]erofs.Xattr, error)
}, in *erofs.Inode,
) (uint32, error) {
	xattrs, err := v.Xattrs(in)
	if err != nil {
		return 0, err
	}
	var b []byte
	count, size := 0, 0
	for _, a := range xattrs {
		fits := false
		for i, prefix := range squashPrefixes {
			if name, ok := strings.CutPrefix(a.Name, prefix); ok {
				fits = true
				b = le.AppendUint16(b, uint16(i))
				b = le.AppendUint16(b, uint16(len(name)))
				b = append(b, name...)
				b = le.AppendUint32(b, uint32(len(a.Value)))
				b = append(b, a.Value...)
				count++
				size += len(a.Name) + 1
			}
		}
		x.lost = x.lost || !fits
	}
	if count == 0 {
		return squashNone, nil
	}
	if x.known == nil {
		x.known = map[string]uint32{}
	}
	i, ok := x.known[string(b)]
	if !ok {
		i = uint32(len(x.known))
		x.known[string(b)] = i
		x.list = le.AppendUint64(x.list, x.pairs.ref())
		x.list = le.AppendUint32(x.list, uint32(count))
		x.list = le.AppendUint32(x.list, uint32(size))
		x.pairs.write(b)
	}
	return i, nil
}
