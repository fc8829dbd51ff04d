package erofs

import (
	"fmt"
	"slices"
)

// Align brings the data of files whose extents are not aligned into the tree,
// whole blocks at a time, so that [Tree.ReadDevice] is not needed any more.
func (t *Tree) Align() error {
	for _, d := range t.short {
		if err := t.alignEnd(d); err != nil {
			return err
		}
	}
	t.short = nil
	var total int64
	budget := t.budget()
	for i := range uint32(t.inodes.n) {
		in := t.inodes.at(i)
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

// alignEnd copies what files have in the last block of a device that ends within it: the kernel
// cannot read that (EIO; Linux 6.18, as found by TestShortBlob).
func (t *Tree) alignEnd(d shortDevice) error {
	whole := d.size / BlockSize * BlockSize
	for i := range uint32(t.inodes.n) {
		in := t.inodes.at(i)
		var buf [1]Extent
		if !in.isRegular() || in.flags&inodeUnpacked != 0 {
			continue
		}
		ext := t.extentsOf(in, &buf)
		if len(ext) == 0 {
			continue
		}
		last := ext[len(ext)-1]
		if last.Device != d.n || last.Phys+last.Len <= whole {
			continue
		}
		before := max(whole-last.Phys, 0)
		end := Extent{Off: last.Off + before, Len: last.Len - before, Phys: int64(len(t.data))}
		block := make([]byte, roundUp(end.Len, BlockSize))
		if err := t.readDevice(d.n, block[:end.Len], last.Phys+before); err != nil {
			return err
		}
		t.data = append(t.data, block...)
		in.where = int64(len(t.extents))
		t.extents = append(t.extents, ext[:len(ext)-1]...)
		if before > 0 {
			last.Len = before
			t.extents = append(t.extents, last)
		}
		t.extents = append(t.extents, end)
		in.count = uint32(int64(len(t.extents)) - in.where)
	}
	return nil
}

// budget is how large the image may become, in bytes.
func (t *Tree) budget() int64 {
	n := freeIndexBytes + 512*int64(t.ents.n)
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
