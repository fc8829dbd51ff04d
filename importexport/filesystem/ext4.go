package filesystem

import (
	"context"
	"fmt"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// On-disk constants of ext4, from fs/ext4/ext4.h.
const (
	ext4Super     = 1024 // offset of the superblock, which is as long
	ext4Magic     = 0xEF53
	ext4Inode     = 256 // bytes of an inode
	ext4Extra     = 32  // of them, those beyond the first 128 that have a fixed meaning
	ext4Desc      = 32  // bytes of a group descriptor
	ext4RootInode = 2
	ext4FirstFree = 11 // inodes before it have a meaning of their own
	ext4MaxGroup  = 8 * blockSize
	ext4MaxLinks  = 65000
	ext4MaxBlocks = 1<<32 - 1 // of the filesystem, and of a file

	ext4CompatXattr     = 0x8
	ext4CompatDirIndex  = 0x20
	ext4IncompatType    = 0x2
	ext4IncompatExtents = 0x40
	ext4IncompatFlex    = 0x200
	ext4ROSparseSuper   = 0x1
	ext4ROLargeFile     = 0x2
	ext4ROHugeFile      = 0x8
	ext4RODirNlink      = 0x20
	ext4ROExtraSize     = 0x40

	ext4InodeExtents = 0x80000 // flag
)

// WriteExt4 writes a tree as an ext4 image that has no block and no inode to spare, and no
// journal; resize2fs(8) and tune2fs(8) give it both. Directories are not indexed by hashes.
// Kernels mount it since Linux 2.6.28.
//
// Times are held to what ext4 has, the years 1901 to 2446. The error wraps [ErrLimit] where it
// cannot hold a file: more than 16 TiB, more than 65,000 names, more than about 4 KiB of
// extended attributes. The meter, which may be nil, counts the data of files.
func WriteExt4(ctx context.Context, v *cas.View, im *output.Image, m *progress.Meter) error {
	j := job{ctx, v, im, m}
	nodes, err := j.readTree()
	if err != nil {
		return err
	}
	w := &ext4Writer{job: j, nodes: nodes, plans: make([]ext4Plan, len(nodes)), xattrBlocks: map[string]*xattrBlock{}}
	for i, n := range nodes {
		n.number = ext4RootInode
		if i > 0 {
			n.number = uint32(ext4FirstFree + i - 1)
		}
		if err := w.plan(n, &w.plans[i]); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
	}
	if err := w.place(); err != nil {
		return err
	}
	if err := w.im.Truncate(w.geo.blocks << blockBits); err != nil {
		return err
	}
	for i, n := range nodes {
		if err := w.content(n, &w.plans[i]); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
	}
	if err := w.xattrContent(); err != nil {
		return err
	}
	if err := w.inodeTables(); err != nil {
		return err
	}
	return w.groups()
}

type ext4Writer struct {
	job
	nodes       []*node
	plans       []ext4Plan // by node
	xattrBlocks map[string]*xattrBlock
	xattrOrder  []*xattrBlock // as they were made: a map has no order
	geo         ext4Geometry
	space       ext4Space
}

// An ext4Plan is where a node's content goes.
type ext4Plan struct {
	size    int64
	target  string       // of a symbolic link
	runs    []run        // of its data
	extents []ext4Extent // where they are
	tree    []int64      // blocks of the extent tree, the leaves first
	inXattr []byte       // extended attributes within the inode
	xattrs  *xattrBlock  // others
}

// blocks is how many blocks of the image are the node's.
func (p *ext4Plan) blocks() (n int64) {
	for _, e := range p.extents {
		n += e.n
	}
	n += int64(len(p.tree))
	if p.xattrs != nil {
		n++
	}
	return n
}

// shortLink is how long the target of a symbolic link may be to lie in the inode.
const shortLink = 59

func (w *ext4Writer) plan(n *node, p *ext4Plan) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	var err error
	switch {
	case n.IsDir():
		p.size = ext4DirSize(n)
		p.runs = []run{{0, p.size >> blockBits}}
	case n.IsSymlink():
		p.target, err = w.view.Readlink(&n.Inode)
		if p.size = int64(len(p.target)); p.size > shortLink {
			p.runs = []run{{0, blocksOf(p.size)}}
		}
	case n.IsRegular():
		p.size = n.Size
		p.runs, err = runsOf(w.view, &n.Inode)
	}
	switch {
	case err != nil:
		return err
	case blocksOf(p.size) > ext4MaxBlocks:
		return fmt.Errorf("%w: a file of %d bytes", ErrLimit, p.size)
	case !n.IsDir() && n.nlink > ext4MaxLinks:
		return fmt.Errorf("%w: a file of %d names", ErrLimit, n.nlink)
	}
	return w.planXattrs(n, p)
}

// content writes the data of a node and the tree of its extents.
func (w *ext4Writer) content(n *node, p *ext4Plan) error {
	if err := w.extentTree(p); err != nil {
		return err
	}
	if len(p.extents) == 0 {
		return nil
	}
	var text []byte
	switch {
	case n.IsDir():
		text = ext4Dir(n)
	case n.IsSymlink():
		text = []byte(p.target)
	}
	for _, e := range p.extents {
		from, at := e.first<<blockBits, e.block<<blockBits
		to := min(from+e.n<<blockBits, p.size)
		var err error
		if text != nil {
			_, err = w.im.WriteAt(text[from:to], at)
		} else {
			err = w.copyRange(&n.Inode, from, to, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ext4DirEntry is how many bytes an entry takes.
func ext4DirEntry(name []byte) int { return (8 + len(name) + 3) &^ 3 }

// ext4DirBlocks calls yield for the entries of each block of a directory.
func ext4DirBlocks(n *node, yield func([]entry)) {
	all := append([]entry{{[]byte("."), n}, {[]byte(".."), n.parent}}, n.entries...)
	size, from := 0, 0
	for i, e := range all {
		need := ext4DirEntry(e.name)
		if size+need > blockSize {
			yield(all[from:i])
			size, from = 0, i
		}
		size += need
	}
	yield(all[from:])
}

func ext4DirSize(n *node) (size int64) {
	ext4DirBlocks(n, func([]entry) { size += blockSize })
	return size
}

// ext4Dir is the data of a directory. The last entry of a block takes the rest of it.
func ext4Dir(n *node) []byte {
	var b []byte
	ext4DirBlocks(n, func(entries []entry) {
		end := len(b) + blockSize
		for i, e := range entries {
			size := ext4DirEntry(e.name)
			if i == len(entries)-1 {
				size = end - len(b)
			}
			start := len(b)
			b = le.AppendUint32(b, e.number)
			b = le.AppendUint16(b, uint16(size))
			b = append(b, byte(len(e.name)), typeOf(e.node))
			b = append(b, e.name...)
			b = append(b, make([]byte, size-(len(b)-start))...)
		}
	})
	return b
}
