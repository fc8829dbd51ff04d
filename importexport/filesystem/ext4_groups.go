package filesystem

import (
	"context"
	"math"

	"golang.org/x/sys/unix"
)

// inodeTables writes the inodes, group by group.
func (w *ext4Writer) inodeTables() error {
	g := &w.geo
	table := make([]byte, g.inodes*ext4Inode)
	first := int64(1) // number of the group's first inode
	for group := range g.groups {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		clear(table)
		end := int64(0)
		put := func(i int) {
			if at := int64(w.nodes[i].number) - first; at >= 0 && at < g.inodes {
				w.plans[i].putInode(table[at*ext4Inode:(at+1)*ext4Inode], w.nodes[i])
				end = max(end, (at+1)*ext4Inode)
			}
		}
		put(0)
		// The others' numbers count up with their places.
		for i := max(1, int(first)-ext4FirstFree+1); i < len(w.nodes) && int64(w.nodes[i].number) < first+g.inodes; i++ {
			put(i)
		}
		if _, err := w.im.WriteAt(table[:end], g.inodeTables[group]<<blockBits); err != nil {
			return err
		}
		first += g.inodes
	}
	return nil
}

// putInode writes a node's inode (struct ext4_inode).
func (p *ext4Plan) putInode(b []byte, n *node) {
	links := n.nlink
	if n.IsDir() && links > ext4MaxLinks {
		links = 1 // means: too many to say (dir_nlink)
	}
	sectors := p.blocks() * (blockSize / 512)
	seconds, extra := ext4Time(n.MtimeSec, n.MtimeNsec)
	le.PutUint16(b[0:], uint16(n.Mode))
	le.PutUint16(b[2:], uint16(n.UID))
	le.PutUint32(b[4:], uint32(p.size))
	for _, at := range []int{8, 12, 16, 144} { // access, change, modification, creation
		le.PutUint32(b[at:], seconds)
	}
	le.PutUint16(b[24:], uint16(n.GID))
	le.PutUint16(b[26:], uint16(links))
	le.PutUint32(b[28:], uint32(sectors))
	data := b[40:100]
	switch {
	case n.IsSymlink() && p.size <= shortLink:
		copy(data, p.target)
	case n.IsSymlink(), n.IsDir(), n.IsRegular():
		le.PutUint32(b[32:], ext4InodeExtents)
		copy(data, p.root())
	case unix.Major(n.Rdev) < 256 && unix.Minor(n.Rdev) < 256:
		le.PutUint32(data, unix.Major(n.Rdev)<<8|unix.Minor(n.Rdev))
	default:
		le.PutUint32(data[4:], deviceNumber(n.Rdev))
	}
	if p.xattrs != nil {
		le.PutUint32(b[104:], uint32(p.xattrs.block))
	}
	le.PutUint32(b[108:], uint32(p.size>>32))
	le.PutUint16(b[116:], uint16(sectors>>32))
	le.PutUint16(b[120:], uint16(n.UID>>16))
	le.PutUint16(b[122:], uint16(n.GID>>16))
	le.PutUint16(b[128:], ext4Extra)
	for _, at := range []int{132, 136, 140, 148} {
		le.PutUint32(b[at:], extra)
	}
	if p.inXattr != nil {
		le.PutUint32(b[128+ext4Extra:], xattrMagic)
		copy(b[xattrInode:], p.inXattr)
	}
}

// ext4Time is a time in the two fields that ext4 has for it: 32 bits of seconds, signed, and two
// more of them below the nanoseconds.
func ext4Time(sec int64, nsec uint32) (seconds, extra uint32) {
	const first, last = math.MinInt32, math.MaxInt32 + 3<<32
	if sec < first {
		sec, nsec = first, 0
	}
	if sec > last {
		sec, nsec = last, 0
	}
	epoch := uint32((sec-int64(int32(sec)))>>32) & 3
	return uint32(sec), nsec<<2 | epoch
}

// groups writes the bitmaps, the group descriptors and the superblock, with their copies.
func (w *ext4Writer) groups() error {
	g := &w.geo
	table := make([]byte, g.descriptors<<blockBits)
	var freeBlocks, freeInodes int64
	dirs := make([]int64, g.groups)
	for _, n := range w.nodes {
		if n.IsDir() {
			dirs[int64(n.number-1)/g.inodes]++
		}
	}
	for group := range g.groups {
		blocks, blocksLeft := w.blockBitmap(group)
		inodes, inodesLeft := w.inodeBitmap(group)
		freeBlocks, freeInodes = freeBlocks+blocksLeft, freeInodes+inodesLeft
		if _, err := w.im.WriteAt(blocks, g.blockBitmaps[group]<<blockBits); err != nil {
			return err
		}
		if _, err := w.im.WriteAt(inodes, g.inodeBitmaps[group]<<blockBits); err != nil {
			return err
		}
		d := table[group*ext4Desc:]
		le.PutUint32(d[0:], uint32(g.blockBitmaps[group]))
		le.PutUint32(d[4:], uint32(g.inodeBitmaps[group]))
		le.PutUint32(d[8:], uint32(g.inodeTables[group]))
		le.PutUint16(d[12:], uint16(blocksLeft))
		le.PutUint16(d[14:], uint16(inodesLeft))
		le.PutUint16(d[16:], uint16(dirs[group]))
	}
	for group := range g.groups {
		if !g.hasSuper(group) {
			continue
		}
		at := group * g.perGroup << blockBits
		if _, err := w.im.WriteAt(table, at+blockSize); err != nil {
			return err
		}
		if group == 0 {
			at += ext4Super
		}
		if _, err := w.im.WriteAt(w.super(group, freeBlocks, freeInodes), at); err != nil {
			return err
		}
	}
	return nil
}

// blockBitmap says which blocks of a group are in use: all up to the end but for those that were
// passed over. Bits of blocks that are not there are set.
func (w *ext4Writer) blockBitmap(group int64) (b []byte, free int64) {
	g := &w.geo
	start := group * g.perGroup
	b = make([]byte, blockSize)
	for i := range b {
		b[i] = 0xff
	}
	clearBits := func(r run) {
		for i := max(r.first, start); i < min(r.first+r.n, start+g.perGroup); i++ {
			b[(i-start)/8] &^= 1 << ((i - start) % 8)
			free++
		}
	}
	for _, r := range w.space.free {
		clearBits(r)
	}
	if w.space.next < g.blocks {
		clearBits(run{w.space.next, g.blocks - w.space.next})
	}
	return b, free
}

func (w *ext4Writer) inodeBitmap(group int64) (b []byte, free int64) {
	g := &w.geo
	last := int64(ext4FirstFree - 1 + len(w.nodes) - 1)
	b = make([]byte, blockSize)
	for i := range int64(8 * blockSize) {
		if i >= g.inodes || group*g.inodes+i < last {
			b[i/8] |= 1 << (i % 8)
		} else {
			free++
		}
	}
	return b, free
}

// super is the superblock, or the copy of it in a group (struct ext4_super_block).
func (w *ext4Writer) super(group, freeBlocks, freeInodes int64) []byte {
	g := &w.geo
	b := make([]byte, 1024)
	for _, f := range []struct{ at, value int64 }{
		{0, g.groups * g.inodes},
		{4, g.blocks},
		{12, freeBlocks},
		{16, freeInodes},
		{24, blockBits - 10},
		{28, blockBits - 10},
		{32, g.perGroup},
		{36, g.perGroup},
		{40, g.inodes},
		{76, 1}, // revision, with what follows
		{84, ext4FirstFree},
		{92, ext4CompatXattr | ext4CompatDirIndex},
		{96, ext4IncompatType | ext4IncompatExtents | ext4IncompatFlex},
		{100, ext4ROSparseSuper | ext4ROLargeFile | ext4ROHugeFile | ext4RODirNlink | ext4ROExtraSize},
		{256, 0x4 | 0x8}, // user_xattr, acl
		{352, 0x2},       // hashes of names take bytes for unsigned
	} {
		le.PutUint32(b[f.at:], uint32(f.value))
	}
	for _, f := range []struct{ at, value int64 }{
		{54, 0xffff}, // mounts until it is checked: never
		{56, ext4Magic},
		{58, 1}, // unmounted cleanly
		{60, 1}, // go on after errors
		{88, ext4Inode},
		{90, group},
		{348, ext4Extra},
		{350, ext4Extra},
	} {
		le.PutUint16(b[f.at:], uint16(f.value))
	}
	uuid, seed := uuidOf("ext4", w.view), uuidOf("ext4 names", w.view)
	copy(b[104:], uuid[:])
	copy(b[236:], seed[:])
	b[252] = 1 // names are hashed with half MD4
	b[372] = 4 // groups of a flexible group, as a logarithm
	return b
}
