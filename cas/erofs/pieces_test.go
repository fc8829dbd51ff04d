package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestPieces reads directories and extents from everywhere on, and finds what reading
// the whole finds.
func TestPieces(t *testing.T) {
	im := image(t, seedTree(t))
	must(t, checkPieces(im))
	blocks, inodes := im.Totals()
	if want := uint64(len(im.b))/BlockSize + 1<<20/BlockSize; blocks != want || inodes != 49 {
		t.Errorf("%d blocks, %d inodes, expected %d and 49", blocks, inodes, want)
	}
}

// checkPieces goes through the inodes that are reached from the root, as far as the
// image is not damaged.
func checkPieces(im *Image) error {
	nids, seen := []NID{im.Root()}, map[NID]bool{}
	for len(nids) > 0 && len(seen) < 500 {
		n := nids[0]
		nids = nids[1:]
		in, err := im.Inode(n)
		if err != nil || seen[n] {
			continue
		}
		seen[n] = true
		if err := checkExtents(im, &in); err != nil {
			return err
		}
		if err := checkDir(im, &in, func(e Dirent) { nids = append(nids, e.NID) }); err != nil {
			return err
		}
	}
	return nil
}

func checkExtents(im *Image, in *Inode) error {
	var all []Extent
	if im.Extents(in, func(e Extent) bool { all = append(all, e); return len(all) < 1000 }) != nil {
		return nil
	}
	for _, off := range []int64{0, 1, 4095, 4096, 5000, 1 << 15, in.Size - 1} {
		const n = 3000
		end := int64(0)
		err := im.ExtentsIn(in, off, n, func(e Extent) bool {
			whole := slices.IndexFunc(all, func(w Extent) bool {
				return w.Off <= e.Off && e.Off+e.Len <= w.Off+w.Len && w.Device == e.Device && w.Phys-w.Off == e.Phys-e.Off
			})
			if e.Off < max(off, end) || e.Len <= 0 || e.Off+e.Len > off+n || len(all) < 1000 && whole < 0 {
				end = -1
				return false
			}
			end = e.Off + e.Len
			return true
		})
		if err != nil || end < 0 {
			return fmt.Errorf("inode %d: extents from %d on are not in %v: %w", in.NID, off, all, err)
		}
	}
	return nil
}

func checkDir(im *Image, in *Inode, visit func(Dirent)) error {
	type place struct {
		name []byte
		next DirPos
	}
	var all []place
	if im.ReadDirAt(in, 0, func(e Dirent, next DirPos) bool {
		all = append(all, place{e.Name, next})
		visit(e)
		return true
	}) != nil {
		return nil
	}
	for i, p := range all {
		left := all[i+1:]
		err := im.ReadDirAt(in, p.next, func(e Dirent, next DirPos) bool {
			if len(left) == 0 || !bytes.Equal(left[0].name, e.Name) || left[0].next != next {
				left = append(left, place{})
				return false
			}
			left = left[1:]
			return true
		})
		if err != nil || len(left) > 0 {
			return fmt.Errorf("directory %d: other entries after %q: %w", in.NID, p.name, err)
		}
	}
	for _, pos := range []DirPos{1 << 40, 1<<64 - 1, 63} {
		err := im.ReadDirAt(in, pos, func(Dirent, DirPos) bool { return true })
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
	}
	return nil
}
