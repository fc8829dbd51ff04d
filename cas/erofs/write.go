package erofs

import (
	"bufio"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"
)

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
			ino := l.t.ents.at(it.ent).ino
			b = le.AppendUint64(b, uint64(l.nid[ino]))
			b = le.AppendUint16(b, uint16(off))
			b = append(b, fileType(l.t.inodes.at(ino).mode), 0)
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
		rootNID:      uint16(l.nid[t.ents.at(rootEntry).ino]),
		inos:         uint64(len(l.order)),
		metaBlkAddr:  uint32(l.meta),
		extraDevices: uint16(len(l.data.devices)),
	}
	var slots []byte
	for _, d := range l.data.devices {
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
	for i, ino := range l.order {
		start := int64(l.nid[ino]) * slotSize
		pad(w, start-at)
		var err error
		if buf, err = l.appendInode(buf[:0], ino, uint32(i+1)); err != nil {
			return 0, err
		}
		w.Write(buf)
		at = start + int64(len(buf))
		sb.flags |= t.inodes.at(ino).markers()
	}
	pad(w, (l.plain-l.meta)*BlockSize-at)
	for _, ino := range l.order {
		buf = l.appendPlain(buf[:0], ino)
		w.Write(buf)
	}
	for _, e := range l.data.own {
		w.Write(t.data[e.Phys : e.Phys+roundUp(e.Len, BlockSize)])
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	sb.flags |= l.xattrFlags()
	sb.bodySum, sb.blocks = ow.sum, uint32(ow.off/BlockSize)
	if t.inodes.at(t.ents.at(rootEntry).ino).flags&inodeImplied != 0 {
		sb.flags |= flagImpliedRoot
	}
	if _, err := dst.WriteAt(sb.marshal(slots[:inSuper]), superOffset); err != nil {
		return 0, err
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

// xattrFlags are the flags of an image that lacks extended attributes or, among them,
// access control lists.
func (l *layout) xattrFlags() byte {
	none := flagNoXattrs | flagNoACLs
	known := make([]bool, len(l.t.xattrs)) // equal sets are stored once
	for _, ino := range l.order {
		in := l.t.inodes.at(ino)
		if in.flags&inodeOpaque != 0 {
			none &^= flagNoXattrs
		}
		if known[in.xattrs] {
			continue
		}
		known[in.xattrs] = true
		// It is well formed, as we have made it.
		_ = forXattr([]byte(l.t.xattrs[in.xattrs]), func(index byte, _, _, _ []byte) {
			none &^= flagNoXattrs
			if index == aclAccessIndex || index == aclDefaultIndex {
				none &^= flagNoACLs
			}
		})
	}
	return none
}

var zeros [4096]byte

func pad(w *bufio.Writer, n int64) {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		w.Write(zeros[:k])
		n -= k
	}
}

// appendInode appends an inode, the nth, with its xattrs and what follows them.
func (l *layout) appendInode(b []byte, ino, n uint32) ([]byte, error) {
	in := l.t.inodes.at(ino)
	xattrs := l.t.xattrBody(in)
	var layoutOf, union uint32
	size := in.size
	chunks := uint8(0)
	switch {
	case in.isDir() || in.isSymlink():
		data := l.text[ino]
		union = uint32(l.plain) + data.block
		if in.isDir() {
			size = data.size
		}
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
	b = le.AppendUint32(b, n)
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
	if in := l.t.inodes.at(ino); in.isSymlink() {
		return l.t.names[in.where : in.where+in.size]
	}
	return l.dirData(nil, l.text[ino].ent)
}

// appendPlain appends the data of an inode that lies in blocks of its own.
func (l *layout) appendPlain(b []byte, ino uint32) []byte {
	text, ok := l.text[ino]
	if !ok {
		return b
	}
	if l.t.inodes.at(ino).flags&inodeInline != 0 {
		if text.size < BlockSize {
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
		device, block := l.data.block(ext[0], off, own)
		b = le.AppendUint16(b, 0)
		b = le.AppendUint16(b, device)
		b = le.AppendUint32(b, block)
	}
	return b
}
