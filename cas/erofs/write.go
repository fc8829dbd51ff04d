package erofs

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"
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
	dirEnt  map[uint32]uint32
	block   []uint32 // by inode: first block of plain data
	size    []int64  // by inode: of directory data; of a symbolic link see inode
	metaEnd int64    // of the inodes, from the start of their area
	blocks  int64    // of plain data behind the inodes, in use so far
	meta    int64    // block where the inodes begin
	plain   int64    // block where plain data begins
}

// WriteTo writes the image of the tree to w, which must be empty. The same
// tree gives the same bytes. The error wraps [ErrLimit] where the tree does not
// fit into the format.
func (t *Tree) WriteTo(w io.WriterAt) (size int64, err error) {
	if err := t.Align(); err != nil {
		return 0, err
	}
	l := &layout{t: t}
	l.sortEntries()
	if err := l.place(); err != nil {
		return 0, err
	}
	return l.write(w)
}

// Align brings the data of files whose extents are not aligned into the tree,
// whole blocks at a time, so that [Tree.ReadDevice] is not needed any more.
func (t *Tree) Align() error {
	var total int64
	budget := t.budget()
	for i := range t.inodes {
		in := &t.inodes[i]
		if in.flags&inodeUnpacked == 0 {
			continue
		}
		old := slices.Clone(t.extents[in.where : in.where+int64(in.count)])
		packed, err := t.alignExtents(old, in.size, func(n int64) error {
			if total += n; total > budget {
				return fmt.Errorf("%w: sparse files that are not aligned need %d bytes", ErrLimit, total)
			}
			return nil
		})
		if err != nil {
			return err
		}
		in.flags &^= inodeUnpacked
		in.where, in.count = int64(len(t.extents)), uint32(len(packed))
		t.extents = append(t.extents, packed...)
	}
	return nil
}

// budget is how large the image may become, in bytes.
func (t *Tree) budget() int64 {
	n := freeIndexBytes + 512*int64(len(t.ents))
	for _, d := range t.devices {
		n += 2 * int64(d.Blocks) * BlockSize
	}
	return n
}

// alignExtents copies extents into the image's own data, in blocks, and returns
// the aligned extents that say where. grow is asked before each n bytes.
func (t *Tree) alignExtents(old []Extent, size int64, grow func(n int64) error) ([]Extent, error) {
	var out []Extent
	for _, e := range old {
		for e.Len > 0 {
			from := e.Off / BlockSize * BlockSize
			n := min(e.Len, 1<<20, BlockSize*2048-(e.Off-from))
			if len(out) == 0 || out[len(out)-1].Off+out[len(out)-1].Len <= e.Off {
				out = append(out, Extent{Off: from, Phys: int64(len(t.data))})
			}
			last := &out[len(out)-1]
			end := roundUp(e.Off+n, BlockSize)
			if more := end - (last.Off + last.Len); more > 0 {
				if err := grow(more); err != nil {
					return nil, err
				}
				t.data = append(t.data, make([]byte, more)...)
				last.Len += more
			}
			at := last.Phys + e.Off - last.Off
			if err := t.readDevice(e.Device, t.data[at:at+n], e.Phys); err != nil {
				return nil, err
			}
			e.Off, e.Phys, e.Len = e.Off+n, e.Phys+n, e.Len-n
		}
	}
	for i := range out {
		out[i].Len = min(out[i].Len, size-out[i].Off)
	}
	return out, nil
}

func (t *Tree) readDevice(device int, p []byte, off int64) error {
	if device == 0 {
		if off < 0 || off+int64(len(p)) > int64(len(t.data)) {
			return fmt.Errorf("%w: data at %d of %d", ErrCorrupt, off, len(t.data))
		}
		copy(p, t.data[off:])
		return nil
	}
	if t.ReadDevice == nil {
		return fmt.Errorf("%w: an extent that is not aligned, and no way to read it", ErrLimit)
	}
	return t.ReadDevice(device, p, off)
}

// sortEntries finds the living entries and sorts them by directory and name.
func (l *layout) sortEntries() {
	t := l.t
	l.first = make([]uint32, len(t.ents))
	l.kids = make([]uint32, len(t.ents))
	n := uint32(0)
	for i := range t.ents {
		e := &t.ents[i]
		if i == rootEntry {
			continue
		}
		// A parent stands before its children, so its state is final here.
		if e.dead = e.dead || t.ents[e.parent].dead; !e.dead {
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
	for i := range t.ents {
		if e := &t.ents[i]; i != rootEntry && !e.dead {
			l.live[next[e.parent]] = uint32(i)
			next[e.parent]++
		}
	}
	for i := range t.ents {
		if l.kids[i] > 1 {
			slices.SortFunc(l.children(uint32(i)), func(a, b uint32) int {
				return bytes.Compare(t.nameOf(&t.ents[a]), t.nameOf(&t.ents[b]))
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
	l.nid = make([]NID, len(t.inodes))
	l.block = make([]uint32, len(t.inodes))
	l.size = make([]int64, len(t.inodes))
	l.dirEnt = make(map[uint32]uint32)
	for i := range t.inodes {
		t.inodes[i].nlink = 0
	}
	l.meta = roundUp(superOffset+superSize+int64(len(t.devices))*deviceSize, BlockSize) / BlockSize

	if err := l.placeInode(t.ents[rootEntry].ino, rootEntry); err != nil {
		return err
	}
	t.inodes[t.ents[rootEntry].ino].nlink = 2
	stack := []uint32{rootEntry}
	for len(stack) > 0 {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		kids := l.children(dir)
		for _, k := range kids {
			ino := t.ents[k].ino
			in := &t.inodes[ino]
			if in.isDir() {
				in.nlink = 2
				t.inodes[t.ents[dir].ino].nlink++
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
			if t.inodes[t.ents[k].ino].isDir() {
				stack = append(stack, k)
			}
		}
	}
	if budget := t.budget(); l.metaEnd > budget {
		return fmt.Errorf("%w: %d bytes of inodes where %d are reasonable", ErrLimit, l.metaEnd, budget)
	}
	l.plain = l.meta + roundUp(l.metaEnd, BlockSize)/BlockSize
	if end := l.plain + l.blocks + roundUp(int64(len(t.data)), BlockSize)/BlockSize; end >= maxBlocks {
		return fmt.Errorf("%w: an index of %d blocks", ErrLimit, end)
	}
	return nil
}

func (l *layout) placeInode(ino, ent uint32) error {
	in := &l.t.inodes[ino]
	head := int64(inodeSize) + xattrSize(len(l.t.xattrBody(in)))
	body := int64(0) // what follows, in bytes
	fits := false    // in one block with where it begins: inline
	switch {
	case in.isDir():
		l.dirEnt[ino] = ent
		l.size[ino] = l.dirSize(ent)
		fits, body = true, l.size[ino]%BlockSize
	case in.isSymlink():
		l.size[ino] = in.size
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
		l.placePlain(ino, fits && body > 0)
	}
	l.nid[ino] = NID(at / slotSize)
	l.order = append(l.order, ino)
	l.metaEnd = roundUp(at+head+body, slotSize)
	return nil
}

// placePlain gives data blocks to a directory or symbolic link, less its tail
// if that lies behind the inode.
func (l *layout) placePlain(ino uint32, inline bool) {
	n := roundUp(l.size[ino], BlockSize) / BlockSize
	l.block[ino] = uint32(l.blocks)
	if inline {
		n--
		l.t.inodes[ino].flags |= inodeInline
	} else {
		l.t.inodes[ino].flags &^= inodeInline
	}
	l.blocks += n
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
	}{{[]byte("."), ent}, {[]byte(".."), l.t.ents[ent].parent}}
	d := 0
	for _, k := range l.children(ent) {
		name := l.t.nameOf(&l.t.ents[k])
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

// dirData appends a directory's data to b.
func (l *layout) dirData(b []byte, ent uint32) []byte {
	type item struct {
		name []byte
		ent  uint32
	}
	var block []item
	used := 0
	flush := func(pad bool) {
		start := len(b)
		off := direntSize * len(block)
		for _, it := range block {
			ino := l.t.ents[it.ent].ino
			b = le.AppendUint64(b, uint64(l.nid[ino]))
			b = le.AppendUint16(b, uint16(off))
			b = append(b, fileType(l.t.inodes[ino].mode), 0)
			off += len(it.name)
		}
		for _, it := range block {
			b = append(b, it.name...)
		}
		for pad && (len(b)-start)%BlockSize != 0 {
			b = append(b, 0)
		}
		block, used = block[:0], 0
	}
	l.forDirents(ent, func(name []byte, e uint32) {
		if used+direntSize+len(name) > BlockSize {
			flush(true)
		}
		block = append(block, item{name, e})
		used += direntSize + len(name)
	})
	flush(false)
	return b
}

func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return ftRegular
	case unix.S_IFDIR:
		return ftDir
	case unix.S_IFCHR:
		return ftChar
	case unix.S_IFBLK:
		return ftBlock
	case unix.S_IFIFO:
		return ftFifo
	case unix.S_IFSOCK:
		return ftSocket
	default:
		return ftSymlink
	}
}

// offsetWriter writes in sequence from an offset on, and sums up what it writes.
type offsetWriter struct {
	w   io.WriterAt
	off int64
	sum uint32
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.w.WriteAt(p, w.off)
	w.sum = crc32.Update(w.sum, castagnoli, p[:n])
	w.off += int64(n)
	return n, err
}

// write emits the image: inodes, plain data of directories and links, copied
// data, and the superblock with its checksums at last.
func (l *layout) write(dst io.WriterAt) (int64, error) {
	t := l.t
	sb := superblock{
		rootNID:      uint16(l.nid[t.ents[rootEntry].ino]),
		inos:         uint64(len(l.order)),
		metaBlkAddr:  uint32(l.meta),
		extraDevices: uint16(len(t.devices)),
	}
	var slots []byte
	for _, d := range t.devices {
		slot := make([]byte, deviceSize)
		copy(slot[:64], d.Tag)
		le.PutUint32(slot[64:], uint32(d.Blocks))
		slots = append(slots, slot...)
	}
	inSuper := min(len(slots), BlockSize-superSize)

	ow := &offsetWriter{w: dst, off: checksummedBody}
	w := bufio.NewWriterSize(ow, 256<<10)
	w.Write(slots[inSuper:])
	pad(w, l.meta*BlockSize-checksummedBody-int64(len(slots)-inSuper))
	at := int64(0)
	var buf []byte
	for _, ino := range l.order {
		start := int64(l.nid[ino]) * slotSize
		pad(w, start-at)
		var err error
		if buf, err = l.appendInode(buf[:0], ino); err != nil {
			return 0, err
		}
		w.Write(buf)
		at = start + int64(len(buf))
		sb.flags |= t.inodes[ino].markers()
	}
	pad(w, (l.plain-l.meta)*BlockSize-at)
	for _, ino := range l.order {
		buf = l.appendPlain(buf[:0], ino)
		w.Write(buf)
	}
	w.Write(t.data)
	pad(w, roundUp(int64(len(t.data)), BlockSize)-int64(len(t.data)))
	if err := w.Flush(); err != nil {
		return 0, fmt.Errorf("write index: %w", err)
	}
	sb.bodySum, sb.blocks = ow.sum, uint32(ow.off/BlockSize)
	if t.inodes[t.ents[rootEntry].ino].flags&inodeImplied != 0 {
		sb.flags |= flagImpliedRoot
	}
	if _, err := dst.WriteAt(sb.marshal(slots[:inSuper]), superOffset); err != nil {
		return 0, fmt.Errorf("write index: %w", err)
	}
	return ow.off, nil
}

// markers are the flags of an image that holds the inode.
func (in *inode) markers() byte {
	if in.isWhiteout() || in.flags&inodeOpaque != 0 {
		return flagWhiteouts
	}
	return 0
}

var zeros [4096]byte

func pad(w *bufio.Writer, n int64) {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		w.Write(zeros[:k])
		n -= k
	}
}

// appendInode appends an inode with its xattrs and what follows them.
func (l *layout) appendInode(b []byte, ino uint32) ([]byte, error) {
	in := &l.t.inodes[ino]
	xattrs := l.t.xattrBody(in)
	var layoutOf, union uint32
	size := in.size
	chunks := uint8(0)
	switch {
	case in.isDir() || in.isSymlink():
		size = l.size[ino]
		union = uint32(l.plain) + l.block[ino]
		layoutOf = layoutPlain
		if in.flags&inodeInline != 0 {
			layoutOf = layoutInline
		}
	case in.isRegular():
		if size > 0 {
			var err error
			if chunks, err = l.t.chunkBits(in); err != nil {
				return nil, err
			}
			layoutOf, union = layoutChunk, uint32(chunks-blockBits)|chunkFormatIndexes
		}
	default:
		union = uint32(in.where)
		if in.mode&unix.S_IFMT == unix.S_IFIFO || in.mode&unix.S_IFMT == unix.S_IFSOCK {
			union = 0
		}
	}
	xcount := 0
	if len(xattrs) > 0 {
		xcount = 1 + len(xattrs)/4
	}
	b = le.AppendUint16(b, uint16(inodeExtended|layoutOf<<1))
	b = le.AppendUint16(b, uint16(xcount))
	b = le.AppendUint16(b, uint16(in.mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(size))
	b = le.AppendUint32(b, union)
	b = le.AppendUint32(b, ino+1)
	b = le.AppendUint32(b, in.uid)
	b = le.AppendUint32(b, in.gid)
	b = le.AppendUint64(b, uint64(in.mtime))
	b = le.AppendUint32(b, in.nsec)
	b = le.AppendUint32(b, in.nlink)
	b = append(b, zeros[:16]...)
	if xcount > 0 {
		b = append(b, zeros[:xattrHdrSize]...)
		b = append(b, xattrs...)
	}
	switch {
	case layoutOf == layoutChunk:
		b = append(b, zeros[:roundUp(int64(len(b)), chunkIdxSize)-int64(len(b))]...)
		b = l.appendChunks(b, in, chunks)
	case layoutOf == layoutInline:
		data := l.dataOf(ino)
		b = append(b, data[len(data)/BlockSize*BlockSize:]...)
	}
	return b, nil
}

// dataOf returns the data of a directory or symbolic link.
func (l *layout) dataOf(ino uint32) []byte {
	if in := &l.t.inodes[ino]; in.isSymlink() {
		return l.t.names[in.where : in.where+in.size]
	}
	return l.dirData(nil, l.dirEnt[ino])
}

// appendPlain appends the data of an inode that lies in blocks of its own.
func (l *layout) appendPlain(b []byte, ino uint32) []byte {
	in := &l.t.inodes[ino]
	if !in.isDir() && !in.isSymlink() {
		return b
	}
	if in.flags&inodeInline != 0 {
		if l.size[ino] < BlockSize {
			return b
		}
		data := l.dataOf(ino)
		return append(b, data[:len(data)/BlockSize*BlockSize]...)
	}
	b = append(b, l.dataOf(ino)...)
	return append(b, zeros[:roundUp(int64(len(b)), BlockSize)-int64(len(b))]...)
}

// appendChunks appends the chunk indexes of a file: where each chunk begins.
func (l *layout) appendChunks(b []byte, in *inode, chunkBits uint8) []byte {
	var one [1]Extent
	ext := l.t.extentsOf(in, &one)
	// The image's own data follows the plain data of directories.
	own := l.plain + l.blocks
	for off := int64(0); off < in.size; off += 1 << chunkBits {
		for len(ext) > 0 && ext[0].Off+ext[0].Len <= off {
			ext = ext[1:]
		}
		if len(ext) == 0 || ext[0].Off > off {
			b = le.AppendUint32(b, 0)
			b = le.AppendUint32(b, nullBlock)
			continue
		}
		block := (ext[0].Phys + off - ext[0].Off) / BlockSize
		if ext[0].Device == 0 {
			block += own
		}
		b = le.AppendUint16(b, 0)
		b = le.AppendUint16(b, uint16(ext[0].Device))
		b = le.AppendUint32(b, uint32(block))
	}
	return b
}
