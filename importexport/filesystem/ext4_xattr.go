package filesystem

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// Extended attributes of ext4 lie in what is left of the inode, and in one block that inodes with
// the same may share: fs/ext4/xattr.h, Documentation/filesystems/ext4/attributes.rst.
const (
	xattrMagic     = 0xEA020000
	xattrHeader    = 32 // bytes in a block
	xattrEntry     = 16
	xattrEnd       = 4 // zeros behind the last entry
	xattrMaxRefs   = 1024
	xattrInode     = 128 + ext4Extra + 4 // where entries begin in an inode, behind the magic number
	xattrInodeRoom = ext4Inode - xattrInode
	xattrBlockRoom = blockSize - xattrHeader
)

type ext4Xattr struct {
	index byte
	name  []byte
	value []byte
}

func (x *ext4Xattr) size() int {
	return xattrEntry + int(roundUp(int64(len(x.name)), 4)+roundUp(int64(len(x.value)), 4))
}

// An xattrBlock is a block of attributes.
type xattrBlock struct {
	content []byte // but for the number of inodes that have it
	refs    uint32
	block   int64
}

// planXattrs decides where the attributes of a node go.
func (w *ext4Writer) planXattrs(n *node, p *ext4Plan) error {
	var all []ext4Xattr
	var failed error
	err := w.view.EachXattr(&n.Inode, func(prefix string, suffix, value []byte) {
		x := ext4Xattr{xattrIndex(prefix), suffix, value}
		if x.index == xattrACLAccess || x.index == xattrACLDefault {
			var aclErr error
			if x.value, aclErr = ext4ACL(value); aclErr != nil {
				failed = fmt.Errorf("%s: %w", prefix, aclErr)
			}
		}
		all = append(all, x)
	})
	if err = cmp.Or(err, failed); err != nil || len(all) == 0 {
		return err
	}
	slices.SortFunc(all, func(a, b ext4Xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), bytes.Compare(a.name, b.name))
	})
	inside, outside, ok := splitXattrs(all)
	if !ok {
		size := 0
		for i := range all {
			size += all[i].size()
		}
		return fmt.Errorf("%w: %d bytes of extended attributes", ErrLimit, size)
	}
	if len(inside) > 0 {
		p.inXattr = packXattrs(inside, xattrInodeRoom, 0)
	}
	if len(outside) > 0 {
		p.xattrs = w.xattrBlock(outside)
	}
	return nil
}

// splitXattrs finds room for attributes: all in the inode, all in a block, or the small ones in
// the inode.
func splitXattrs(all []ext4Xattr) (inside, outside []ext4Xattr, ok bool) {
	size := xattrEnd
	for i := range all {
		size += all[i].size()
	}
	switch {
	case size <= xattrInodeRoom:
		return all, nil, true
	case size <= xattrBlockRoom:
		return nil, all, true
	}
	in, out := xattrEnd, xattrEnd
	for _, x := range all {
		if in+x.size() <= xattrInodeRoom {
			inside = append(inside, x)
			in += x.size()
		} else {
			outside = append(outside, x)
			out += x.size()
		}
	}
	return inside, outside, out <= xattrBlockRoom
}

// packXattrs makes entries from the beginning of room bytes on and values up to their end.
// Offsets of values count from base bytes before.
func packXattrs(xattrs []ext4Xattr, room, base int) []byte {
	b := make([]byte, room)
	at, end := 0, room
	for i := range xattrs {
		x := &xattrs[i]
		offset := 0
		if len(x.value) > 0 {
			end -= int(roundUp(int64(len(x.value)), 4))
			copy(b[end:], x.value)
			offset = base + end
		}
		e := b[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		le.PutUint16(e[2:], uint16(offset))
		le.PutUint32(e[8:], uint32(len(x.value)))
		le.PutUint32(e[12:], x.hash())
		copy(e[xattrEntry:], x.name)
		at += xattrEntry + int(roundUp(int64(len(x.name)), 4))
	}
	return b
}

// hash is ext4_xattr_hash_entry of Linux.
func (x *ext4Xattr) hash() uint32 {
	var h uint32
	for _, c := range x.name {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	value := append(bytes.Clone(x.value), 0, 0, 0)
	for ; len(value) > 3; value = value[4:] {
		h = h<<16 ^ h>>16 ^ le.Uint32(value)
	}
	return h
}

// xattrBlock finds or makes the block that has these attributes.
func (w *ext4Writer) xattrBlock(xattrs []ext4Xattr) *xattrBlock {
	var hash uint32
	for i := range xattrs {
		h := xattrs[i].hash()
		if h == 0 {
			hash = 0 // not to be shared: ext4_xattr_rehash
			break
		}
		hash = hash<<16 ^ hash>>16 ^ h
	}
	content := make([]byte, xattrHeader, blockSize)
	le.PutUint32(content[0:], xattrMagic)
	le.PutUint32(content[8:], 1) // block
	le.PutUint32(content[12:], hash)
	content = append(content, packXattrs(xattrs, xattrBlockRoom, xattrHeader)...)
	x := w.xattrBlocks[string(content)]
	if x == nil || x.refs == xattrMaxRefs {
		x = &xattrBlock{content: content}
		w.xattrBlocks[string(content)] = x
		w.xattrOrder = append(w.xattrOrder, x)
	}
	x.refs++
	return x
}

func (w *ext4Writer) xattrContent() error {
	for _, x := range w.xattrOrder {
		le.PutUint32(x.content[4:], x.refs)
		if _, err := w.im.WriteAt(x.content, x.block<<blockBits); err != nil {
			return err
		}
	}
	return nil
}

// ext4ACL gives an access control list the form that ext4 stores (fs/ext4/acl.h). The one that
// system calls have is that of include/uapi/linux/posix_acl_xattr.h.
func ext4ACL(value []byte) ([]byte, error) {
	const version, user, group = 2, 0x02, 0x08
	if len(value) < 4 || len(value)%8 != 4 || le.Uint32(value) != version {
		return nil, fmt.Errorf("an access control list of %d bytes that is none", len(value))
	}
	b := le.AppendUint32(nil, 1)
	for e := value[4:]; len(e) > 0; e = e[8:] {
		b = append(b, e[:4]...) // tag, permissions
		if tag := le.Uint16(e); tag == user || tag == group {
			b = append(b, e[4:8]...)
		}
	}
	return b, nil
}
