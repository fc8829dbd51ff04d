package erofs

// A compaction is which devices and own data an image has: those of living files, in the order of their
// inodes. What was replaced since may have left others in the tree. So an image depends on
// what is in the tree, and not on how that came there.
type compaction struct {
	devices []Device
	number  []uint16        // of a device in the image by its number in the tree; 0: it has none
	own     []Extent        // of the tree's own data
	place   map[int64]int64 // where one of them begins in that of the image, by its place in the tree's
	size    int64           // of the image's own data
}

func (t *Tree) compact(order []uint32) *compaction {
	c := &compaction{number: make([]uint16, len(t.devices)+1), place: map[int64]int64{}}
	for _, ino := range order {
		in := t.inodes.at(ino)
		if !in.isRegular() || in.size == 0 {
			continue
		}
		var one [1]Extent
		for _, e := range t.extentsOf(in, &one) {
			if e.Device > 0 {
				c.device(t, e.Device)
			} else {
				c.place[e.Phys] = c.size
				c.own = append(c.own, e)
				c.size += roundUp(e.Len, BlockSize)
			}
		}
	}
	return c
}

func (c *compaction) device(t *Tree, n int) {
	if c.number[n] == 0 {
		c.devices = append(c.devices, t.devices[n-1])
		c.number[n] = uint16(len(c.devices))
	}
}

// block is where a place of an extent lies in the image: a device and a block of it. The image's own
// data begins at its block own.
func (c *compaction) block(e Extent, off, own int64) (device uint16, block uint32) {
	if e.Device > 0 {
		return c.number[e.Device], uint32((e.Phys + off - e.Off) / BlockSize)
	}
	return 0, uint32(own + (c.place[e.Phys]+off-e.Off)/BlockSize)
}
