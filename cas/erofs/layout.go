package erofs

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
)

// Limits of what a sparse file may cost in the index, so that a small hostile tar
// cannot fill the disk.
const (
	maxChunksPerFile = 1 << 24
	freeIndexBytes   = 64 << 20 // an index may be this large whatever its blobs' size
)

// layout is where everything goes in an image that is being written.
type layout struct {
	t       *Tree
	live    []uint32 // entries that are not dead, sorted by directory, then by name
	first   []uint32 // by entry: where in live its children begin; for a directory
	kids    []uint32 // by entry: how many children
	nid     []NID    // by inode; 0: not placed yet
	order   []uint32 // inodes by nid
	text    map[uint32]text
	metaEnd int64 // of the inodes, from the start of their area
	blocks  int64 // of plain data behind the inodes, in use so far
	meta    int64 // block where the inodes begin
	plain   int64 // block where plain data begins
	data    *compaction
}

// text is the data of a directory or symbolic link, by inode in a layout. Short links
// that lie behind their inode have none.
type text struct {
	ent   uint32 // of a directory
	block uint32 // first block of what does not lie behind the inode
	size  int64  // in bytes
}

// sortEntries finds the living entries and sorts them by directory and name.
func (l *layout) sortEntries() {
	t := l.t
	l.first = make([]uint32, t.ents.n)
	l.kids = make([]uint32, t.ents.n)
	n := uint32(0)
	for i := range uint32(t.ents.n) {
		e := t.ents.at(i)
		if i == rootEntry {
			continue
		}
		// A parent stands before its children, so its state is final here.
		if e.dead = e.dead || t.ents.at(e.parent).dead; !e.dead {
			l.kids[e.parent]++
			n++
		}
	}
	l.live = make([]uint32, n)
	at := uint32(0)
	for i := range l.first {
		l.first[i] = at
		at += l.kids[i]
	}
	next := slices.Clone(l.first)
	for i := range uint32(t.ents.n) {
		if e := t.ents.at(i); i != rootEntry && !e.dead {
			l.live[next[e.parent]] = i
			next[e.parent]++
		}
	}
	for i := range uint32(t.ents.n) {
		if l.kids[i] > 1 {
			slices.SortFunc(l.children(i), func(a, b uint32) int {
				return bytes.Compare(t.nameOf(t.ents.at(a)), t.nameOf(t.ents.at(b)))
			})
		}
	}
}

func (l *layout) children(ent uint32) []uint32 {
	return l.live[l.first[ent] : l.first[ent]+l.kids[ent]]
}

// place gives every inode its number: the root first, then the inodes of each
// directory's entries together, so that listing a directory reads one
// stretch of the image.
func (l *layout) place() error {
	t := l.t
	l.nid = make([]NID, t.inodes.n)
	l.text = make(map[uint32]text)
	for i := range uint32(t.inodes.n) {
		t.inodes.at(i).nlink = 0
	}

	if err := l.placeInode(t.ents.at(rootEntry).ino, rootEntry); err != nil {
		return err
	}
	t.inodes.at(t.ents.at(rootEntry).ino).nlink = 2
	stack := []uint32{rootEntry}
	for len(stack) > 0 {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		kids := l.children(dir)
		for _, k := range kids {
			ino := t.ents.at(k).ino
			in := t.inodes.at(ino)
			if in.isDir() {
				in.nlink = 2
				t.inodes.at(t.ents.at(dir).ino).nlink++
			} else {
				in.nlink++
			}
			if in.nlink == 1 || in.isDir() {
				if err := l.placeInode(ino, k); err != nil {
					return err
				}
			}
		}
		for _, k := range slices.Backward(kids) {
			if t.inodes.at(t.ents.at(k).ino).isDir() {
				stack = append(stack, k)
			}
		}
	}
	if budget := t.budget(); l.metaEnd > budget {
		return fmt.Errorf("%w: %d bytes of inodes where %d are reasonable", ErrLimit, l.metaEnd, budget)
	}
	l.data = t.compact(l.order)
	l.meta = roundUp(superOffset+superSize+int64(len(l.data.devices))*deviceSize, BlockSize) / BlockSize
	l.plain = l.meta + roundUp(l.metaEnd, BlockSize)/BlockSize
	if end := l.plain + l.blocks + l.data.size/BlockSize; end >= maxBlocks {
		return fmt.Errorf("%w: an index of %d blocks", ErrLimit, end)
	}
	return nil
}

func (l *layout) placeInode(ino, ent uint32) error {
	in := l.t.inodes.at(ino)
	head := int64(inodeSize) + xattrSize(len(l.t.xattrBody(in)))
	body := int64(0) // what follows, in bytes
	fits := false    // in one block with where it begins: inline
	var data text
	switch {
	case in.isDir():
		data = text{ent: ent, size: l.dirSize(ent)}
		fits, body = true, data.size%BlockSize
	case in.isSymlink():
		data.size = in.size
		fits, body = true, in.size%BlockSize
	case in.isRegular() && in.size > 0:
		bitsOf, err := l.t.chunkBits(in)
		if err != nil {
			return err
		}
		chunks := (in.size-1)>>bitsOf + 1
		head = roundUp(head, chunkIdxSize)
		body = chunks * chunkIdxSize
	}
	at := l.metaEnd
	if fits && body > 0 && (at+head)%BlockSize+body > BlockSize {
		// The tail may not cross a block: begin where it does not, or put it elsewhere.
		if next := roundUp(at, BlockSize); head%BlockSize+body <= BlockSize {
			at = next
		} else {
			fits, body = false, 0
		}
	}
	if in.isDir() || in.isSymlink() {
		l.placeText(ino, data, fits && body > 0)
	}
	l.nid[ino] = NID(at / slotSize)
	l.order = append(l.order, ino)
	l.metaEnd = roundUp(at+head+body, slotSize)
	return nil
}

// placeText gives blocks to the data of a directory or symbolic link, less its tail
// if that lies behind the inode.
func (l *layout) placeText(ino uint32, data text, inline bool) {
	in := l.t.inodes.at(ino)
	in.flags &^= inodeInline
	n := roundUp(data.size, BlockSize) / BlockSize
	if inline {
		n--
		in.flags |= inodeInline
	}
	data.block = uint32(l.blocks)
	l.blocks += n
	if in.isDir() || n > 0 {
		l.text[ino] = data
	}
}

// inodeInline is a flag of an inode while it is written.
const inodeInline uint8 = 1 << 7

// chunkBits returns the binary logarithm of the largest chunk in which the file's
// data can be addressed, or an error if that takes too many chunks.
func (t *Tree) chunkBits(in *inode) (uint8, error) {
	b := uint8(max(blockBits, bits.Len64(uint64(in.size-1))))
	if in.count != contiguous {
		var edges int64
		for _, e := range t.extents[in.where : in.where+int64(in.count)] {
			edges |= e.Off
			if e.Off+e.Len != in.size {
				edges |= e.Len
			}
		}
		if edges != 0 {
			b = min(b, uint8(bits.TrailingZeros64(uint64(edges))))
		}
	}
	b = min(b, maxChunkBits)
	if chunks := (in.size-1)>>b + 1; chunks > maxChunksPerFile && in.count != 0 {
		return 0, fmt.Errorf("%w: a sparse file of %d bytes in %d pieces", ErrLimit, in.size, chunks)
	}
	return b, nil
}

// dirSize is the size of a directory's data: full blocks, and a last one as
// long as its content.
func (l *layout) dirSize(ent uint32) int64 {
	var full, used int64
	l.forDirents(ent, func(name []byte, _ uint32) {
		if n := int64(direntSize + len(name)); used+n > BlockSize {
			full, used = full+BlockSize, n
		} else {
			used += n
		}
	})
	return full + used
}

// forDirents goes through a directory's entries in the order of their bytes,
// with "." and ".." among them.
func (l *layout) forDirents(ent uint32, fn func(name []byte, ent uint32)) {
	dots := [...]struct {
		name []byte
		ent  uint32
	}{{[]byte("."), ent}, {[]byte(".."), l.t.ents.at(ent).parent}}
	d := 0
	for _, k := range l.children(ent) {
		name := l.t.nameOf(l.t.ents.at(k))
		for d < len(dots) && bytes.Compare(dots[d].name, name) < 0 {
			fn(dots[d].name, dots[d].ent)
			d++
		}
		fn(name, k)
	}
	for ; d < len(dots); d++ {
		fn(dots[d].name, dots[d].ent)
	}
}
