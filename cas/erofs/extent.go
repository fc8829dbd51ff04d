package erofs

import "fmt"

// Extents calls yield for each stretch of data of a regular file, in order
// and as long as they can be, until it returns false.
func (im *Image) Extents(in *Inode, yield func(Extent) bool) error {
	return im.ExtentsIn(in, 0, in.Size, yield)
}

// ExtentsIn is [Image.Extents] for n bytes from an offset on: extents are cut to
// these. It takes as long as they have chunks, wherever they lie in the file.
func (im *Image) ExtentsIn(in *Inode, off, n int64, yield func(Extent) bool) error {
	if !in.IsRegular() || off < 0 || off >= in.Size {
		return nil
	}
	end := off + min(n, in.Size-off)
	var cur Extent
	size := int64(1) << in.chunkBits
	for i := off >> in.chunkBits; i<<in.chunkBits < end; i++ {
		idx, err := im.bytes(in.tail+i*chunkIdxSize, chunkIdxSize)
		if err != nil {
			return fmt.Errorf("chunk %d of inode %d: %w", i, in.NID, err)
		}
		block := le.Uint32(idx[4:])
		if block == nullBlock {
			continue
		}
		e := Extent{
			Off: i << in.chunkBits, Len: min(size, in.Size-i<<in.chunkBits),
			Device: int(le.Uint16(idx[2:])), Phys: int64(block) * BlockSize,
		}
		if err := im.checkExtent(e); err != nil {
			return fmt.Errorf("chunk %d of inode %d: %w", i, in.NID, err)
		}
		e.cut(off, end)
		if cur.Device == e.Device && cur.Off+cur.Len == e.Off && cur.Phys+cur.Len == e.Phys {
			cur.Len += e.Len
			continue
		}
		if cur.Len > 0 && !yield(cur) {
			return nil
		}
		cur = e
	}
	if cur.Len > 0 {
		yield(cur)
	}
	return nil
}

// cut leaves what of the extent lies between two offsets of the file.
func (e *Extent) cut(from, to int64) {
	if before := from - e.Off; before > 0 {
		e.Off, e.Phys, e.Len = e.Off+before, e.Phys+before, e.Len-before
	}
	e.Len = min(e.Len, to-e.Off)
}
