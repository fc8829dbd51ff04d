package filesystem

import (
	"context"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// On-disk constants of EROFS, from fs/erofs/erofs_fs.h.
const (
	erofsSuper     = 1024 // offset of the superblock
	erofsSuperSize = 128
	erofsMagic     = 0xE0F5E1E2
	erofsSlot      = 32 // an inode number counts these
	erofsInode     = 64 // bytes of an extended inode
	erofsDirent    = 12
	erofsXattrHdr  = 12
	erofsHole      = math.MaxUint32 // block of a chunk that is a hole

	erofsCompatChecksum = 0x1
	erofsCompatMtime    = 0x2
	erofsChunked        = 0x4 // incompatible feature; Linux 5.15

	erofsPlain       = 0 // layouts of data
	erofsInline      = 2
	erofsChunk       = 4
	erofsMaxChunkLog = 31 // of blocks in a chunk
)

// WriteEROFS writes a tree as an EROFS image, uncompressed, that Linux 5.4 can mount; with a
// sparse file in it, 5.15. Small files lie beside their inodes. Nothing of the tree is lost. The
// meter, which may be nil, counts the data of files.
func WriteEROFS(ctx context.Context, v *cas.View, im *output.Image, m *progress.Meter) error {
	j := job{ctx, v, im, m}
	nodes, err := j.readTree()
	if err != nil {
		return err
	}
	w := &erofsWriter{job: j, nodes: nodes, plans: make([]erofsPlan, len(nodes))}
	if err := w.place(); err != nil {
		return err
	}
	if err := w.inodes(); err != nil {
		return err
	}
	if err := w.data(); err != nil {
		return err
	}
	return w.super()
}

type erofsWriter struct {
	job
	nodes   []*node
	plans   []erofsPlan // by node
	chunked bool        // whether there is a sparse file
	blocks  int64       // of the whole
}

// An erofsPlan is where a node's data goes.
type erofsPlan struct {
	size   int64 // of the data
	layout uint16
	block  int64 // first of what does not lie behind the inode
	head   int32 // bytes of inode and attributes
	inline int32 // bytes behind them
	runs   []run // of a sparse file
	log    uint8 // of a sparse file: of the blocks of a chunk
}

// place decides where everything goes: inodes with what lies behind them first, then blocks.
func (w *erofsWriter) place() error {
	at := int64(erofsSuper + erofsSuperSize)
	for i, n := range w.nodes {
		p := &w.plans[i]
		if err := w.plan(n, p); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
		at = roundUp(at, erofsSlot)
		if p.layout == erofsInline {
			// What lies behind an inode must not cross the end of a block.
			head, tail := int64(p.head), int64(p.inline)
			if (at+head-1)%blockSize+1+tail > blockSize {
				at = roundUp(at, blockSize)
			}
			if (at+head-1)%blockSize+1+tail > blockSize {
				p.layout, p.inline = erofsPlain, 0 // the attributes take so much of it
			}
		}
		n.at, n.number = at, uint32(i+1)
		at += int64(p.head) + int64(p.inline)
	}
	if root := w.nodes[0].at; root/erofsSlot > math.MaxUint16 {
		return fmt.Errorf("%w: the root at %d", ErrLimit, root)
	}
	block := blocksOf(at)
	for i := range w.plans {
		p := &w.plans[i]
		p.block = block
		switch p.layout {
		case erofsPlain:
			block += blocksOf(p.size)
		case erofsInline:
			block += p.size >> blockBits
		case erofsChunk:
			for _, r := range p.runs {
				block += r.n
			}
		}
	}
	if block >= erofsHole {
		return fmt.Errorf("%w: %d blocks of %d bytes", ErrLimit, block, blockSize)
	}
	w.blocks = block
	return nil
}

// plan decides how a node is stored.
func (w *erofsWriter) plan(n *node, p *erofsPlan) error {
	xattrs, err := w.xattrs(n)
	if err != nil {
		return err
	}
	p.head = int32(erofsInode + len(xattrs))
	switch {
	case n.IsDir():
		p.size = erofsDirSize(n)
	case n.IsRegular(), n.IsSymlink():
		p.size = n.Size
	}
	if n.IsRegular() {
		if err := w.planSparse(n, p); err != nil || p.layout == erofsChunk {
			return err
		}
	}
	if tail := p.size % blockSize; tail > 0 {
		p.layout, p.inline = erofsInline, int32(tail)
	}
	return nil
}

// planSparse looks whether a file has holes of whole blocks, and how large the chunks may be
// of which each is a hole or none of it is.
func (w *erofsWriter) planSparse(n *node, p *erofsPlan) error {
	runs, err := runsOf(w.view, &n.Inode)
	if err != nil {
		return err
	}
	var data int64
	edges := uint64(1) << erofsMaxChunkLog
	for _, r := range runs {
		data += r.n
		edges |= uint64(r.first)
		if r.first+r.n < blocksOf(n.Size) {
			edges |= uint64(r.first + r.n)
		}
	}
	if data == blocksOf(n.Size) {
		return nil
	}
	p.layout, p.runs, p.log = erofsChunk, runs, uint8(bits.TrailingZeros64(edges))
	chunks := (blocksOf(n.Size)-1)>>p.log + 1
	const most = 1 << 24 // as in the index that this comes from
	if chunks > most {
		return fmt.Errorf("%w: a sparse file of %d pieces", ErrLimit, chunks)
	}
	p.inline = int32(4 * chunks)
	w.chunked = true
	return nil
}

// data writes what lies in blocks of its own.
func (w *erofsWriter) data() error {
	for i, n := range w.nodes {
		if err := w.nodeData(n, &w.plans[i]); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
	}
	return w.im.Truncate(w.blocks << blockBits)
}

func (w *erofsWriter) nodeData(n *node, p *erofsPlan) error {
	end := p.size
	if p.layout == erofsInline {
		end &^= blockSize - 1
	}
	switch {
	case end == 0 || !n.IsRegular() && !n.IsDir() && !n.IsSymlink():
		return nil
	case p.layout == erofsChunk:
		block := p.block
		for _, r := range p.runs {
			from := r.first << blockBits
			if err := w.copyRange(&n.Inode, from, min(from+r.n<<blockBits, n.Size), block<<blockBits); err != nil {
				return err
			}
			block += r.n
		}
		return nil
	case n.IsRegular():
		return w.copyRange(&n.Inode, 0, end, p.block<<blockBits)
	}
	text, err := w.text(n)
	if err != nil {
		return err
	}
	_, err = w.im.WriteAt(text[:end], p.block<<blockBits)
	return err
}

// super writes the superblock, when all else is there.
func (w *erofsWriter) super() error {
	b := make([]byte, blockSize-erofsSuper)
	if k, err := w.im.File().ReadAt(b, erofsSuper); k < len(b) {
		return fmt.Errorf("read back the first block: %w", err)
	}
	s := b[:erofsSuperSize]
	clear(s)
	le.PutUint32(s[0:], erofsMagic)
	le.PutUint32(s[8:], erofsCompatChecksum|erofsCompatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(w.nodes[0].at/erofsSlot))
	le.PutUint64(s[16:], uint64(len(w.nodes)))
	le.PutUint32(s[36:], uint32(w.blocks))
	uuid := uuidOf("erofs", w.view)
	copy(s[48:64], uuid[:])
	if w.chunked {
		le.PutUint32(s[80:], erofsChunked)
	}
	// The kernel's CRC-32C has no inversion at its end.
	le.PutUint32(s[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	_, err := w.im.WriteAt(s, erofsSuper)
	return err
}
