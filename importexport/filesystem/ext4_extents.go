package filesystem

import "fmt"

const (
	extentMagic     = 0xF30A
	extentSize      = 12 // bytes of the header, of an extent, of an index
	extentsInInode  = 4
	extentsPerBlock = (blockSize - extentSize) / extentSize
)

// treeLevels is how many blocks each level of a tree of n extents has, the leaves first; the
// root is in the inode.
func treeLevels(n int) (levels []int) {
	for n > extentsInInode {
		n = (n + extentsPerBlock - 1) / extentsPerBlock
		levels = append(levels, n)
	}
	return levels
}

// An extentNode is what a node of the tree above has of one below: the first block of
// the file that it is about, and its place.
type extentNode struct {
	first, block int64
}

// appendExtentHeader begins a node of the tree (struct ext4_extent_header).
func appendExtentHeader(b []byte, n, most, depth int) []byte {
	b = le.AppendUint16(b, extentMagic)
	b = le.AppendUint16(b, uint16(n))
	b = le.AppendUint16(b, uint16(most))
	b = le.AppendUint16(b, uint16(depth))
	return le.AppendUint32(b, 0)
}

func appendExtents(b []byte, extents []ext4Extent) []byte {
	for _, e := range extents {
		b = le.AppendUint32(b, uint32(e.first))
		b = le.AppendUint16(b, uint16(e.n))
		b = le.AppendUint16(b, 0)
		b = le.AppendUint32(b, uint32(e.block))
	}
	return b
}

func appendIndexes(b []byte, nodes []extentNode) []byte {
	for _, n := range nodes {
		b = le.AppendUint32(b, uint32(n.first))
		b = le.AppendUint32(b, uint32(n.block))
		b = le.AppendUint32(b, 0)
	}
	return b
}

// extentTree writes what of a file's extent tree does not fit into its inode.
func (w *ext4Writer) extentTree(p *ext4Plan) error {
	_, err := p.eachTreeBlock(func(block int64, content []byte) error {
		_, err := w.im.WriteAt(content, block<<blockBits)
		return err
	})
	return err
}

// root is the top of the extent tree, as the inode has it.
func (p *ext4Plan) root() []byte {
	b := make([]byte, 0, 60)
	if len(p.tree) == 0 {
		return appendExtents(appendExtentHeader(b, len(p.extents), extentsInInode, 0), p.extents)
	}
	top, _ := p.eachTreeBlock(func(int64, []byte) error { return nil })
	depth := len(treeLevels(len(p.extents)))
	return appendIndexes(appendExtentHeader(b, len(top), extentsInInode, depth), top)
}

// eachTreeBlock makes the blocks of the tree, level by level, and returns the nodes of the
// highest one.
func (p *ext4Plan) eachTreeBlock(yield func(block int64, content []byte) error) (level []extentNode, err error) {
	free := p.tree
	put := func(first int64, content []byte) error {
		level = append(level, extentNode{first, free[0]})
		free = free[1:]
		return yield(level[len(level)-1].block, content)
	}
	if len(p.tree) == 0 {
		return nil, nil
	}
	for rest := p.extents; len(rest) > 0; {
		n := min(len(rest), extentsPerBlock)
		if err := put(rest[0].first, appendExtents(appendExtentHeader(nil, n, extentsPerBlock, 0), rest[:n])); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	for depth := 1; len(level) > extentsInInode; depth++ {
		below := level
		level = nil
		for len(below) > 0 {
			n := min(len(below), extentsPerBlock)
			if err := put(below[0].first, appendIndexes(appendExtentHeader(nil, n, extentsPerBlock, depth), below[:n])); err != nil {
				return nil, err
			}
			below = below[n:]
		}
	}
	if len(free) > 0 {
		return nil, fmt.Errorf("%d blocks of an extent tree are left over", len(free))
	}
	return level, nil
}
