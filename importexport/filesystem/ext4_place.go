package filesystem

import "fmt"

// An ext4Geometry is how the blocks of an image are divided into groups. The bitmaps and
// inode tables of all groups lie together at the beginning (flex_bg).
type ext4Geometry struct {
	blocks      int64 // of the whole
	least       int64 // blocks that there must be for the last group to exist
	groups      int64
	perGroup    int64 // blocks
	inodes      int64 // per group
	descriptors int64 // blocks that the table of groups takes

	blockBitmaps, inodeBitmaps, inodeTables []int64 // by group: the first block
}

// geometry divides an image of so many blocks and inodes. A group has no more inodes than
// its bitmap has bits, so many small files make groups smaller than they could be.
func geometry(blocks, inodes int64) ext4Geometry {
	g := ext4Geometry{perGroup: ext4MaxGroup}
	g.groups = (blocks + ext4MaxGroup - 1) / ext4MaxGroup
	if least := (inodes + ext4MaxGroup - 1) / ext4MaxGroup; least > g.groups {
		g.groups = least
		// The tables of inodes must fit between the copies of the superblock.
		const tables = ext4MaxGroup * ext4Inode / blockSize
		g.perGroup = roundUp(max((blocks+least-1)/least, tables+64+blocksOf(least*ext4Desc)), 8)
	}
	g.descriptors = blocksOf(g.groups * ext4Desc)
	g.least = (g.groups-1)*g.perGroup + g.descriptors + 2
	g.blocks = max(blocks, g.least)
	const perBlock = blockSize / ext4Inode
	g.inodes = roundUp((inodes+g.groups-1)/g.groups, perBlock)
	return g
}

// hasSuper reports whether a group begins with a copy of the superblock and of the group
// descriptors (sparse_super).
func (g *ext4Geometry) hasSuper(group int64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// An ext4Extent is a stretch of a file's blocks that lie together.
type ext4Extent struct {
	first, n int64 // in the file
	block    int64 // in the image
}

// maxExtent is how many blocks an extent has at most.
const maxExtent = 1 << 15

// An ext4Space gives out the blocks of an image, from its beginning to its end.
type ext4Space struct {
	geo  *ext4Geometry
	next int64
	free []run // what was passed over
}

// stretch is how many blocks from s.next on belong to no copy of the superblock, at most
// n. It moves s.next past one that is there.
func (s *ext4Space) stretch(n int64) int64 {
	g := s.geo
	group := s.next / g.perGroup
	if head := group*g.perGroup + 1 + g.descriptors; g.hasSuper(group) && s.next < head {
		s.next = head
	}
	for next := group + 1; next*g.perGroup < s.next+n; next++ {
		if g.hasSuper(next) {
			return next*g.perGroup - s.next
		}
	}
	return n
}

// together takes n blocks that lie together.
func (s *ext4Space) together(n int64) int64 {
	for {
		have := s.stretch(n)
		if have == n {
			s.next += n
			return s.next - n
		}
		s.free = append(s.free, run{s.next, have})
		s.next += have
	}
}

// take takes blocks for the data of a file.
func (s *ext4Space) take(runs []run) (extents []ext4Extent) {
	for _, r := range runs {
		for r.n > 0 {
			n := s.stretch(min(r.n, maxExtent))
			extents = append(extents, ext4Extent{r.first, n, s.next})
			s.next += n
			r.first, r.n = r.first+n, r.n-n
		}
	}
	return extents
}

// place decides where everything goes. How many groups there are depends on how much there
// is, and that on where the groups' own blocks are in the way.
func (w *ext4Writer) place() error {
	inodes := int64(ext4FirstFree - 1 + len(w.nodes) - 1)
	blocks := int64(len(w.xattrOrder))
	for i := range w.plans {
		for _, r := range w.plans[i].runs {
			blocks += r.n
		}
	}
	if inodes >= 1<<32 || blocks >= ext4MaxBlocks {
		return fmt.Errorf("%w: %d inodes, %d blocks", ErrLimit, inodes, blocks)
	}
	for {
		w.geo = geometry(blocks, inodes)
		end := max(w.placeIn(), w.geo.least)
		if end > ext4MaxBlocks {
			return fmt.Errorf("%w: %d blocks", ErrLimit, end)
		}
		fits := end <= w.geo.blocks && end > (w.geo.groups-1)*w.geo.perGroup
		if fits {
			w.geo.blocks = end
			return nil
		}
		blocks = end
	}
}

// placeIn puts everything into the groups that there are, or beyond them, and says where it ends.
func (w *ext4Writer) placeIn() int64 {
	g := &w.geo
	w.space = ext4Space{geo: g}
	for _, table := range []struct {
		first *[]int64
		n     int64
	}{{&g.blockBitmaps, 1}, {&g.inodeBitmaps, 1}, {&g.inodeTables, g.inodes * ext4Inode / blockSize}} {
		for range g.groups {
			*table.first = append(*table.first, w.space.together(table.n))
		}
	}
	// What is looked up first: directories, and what belongs to inodes.
	for _, x := range w.xattrOrder {
		x.block = w.space.together(1)
	}
	for _, dirs := range []bool{true, false} {
		for i, n := range w.nodes {
			if n.IsDir() == dirs {
				w.plans[i].place(&w.space)
			}
		}
	}
	return w.space.next
}

func (p *ext4Plan) place(s *ext4Space) {
	p.tree = p.tree[:0]
	p.extents = s.take(p.runs)
	for _, n := range treeLevels(len(p.extents)) {
		for range n {
			p.tree = append(p.tree, s.together(1))
		}
	}
}
