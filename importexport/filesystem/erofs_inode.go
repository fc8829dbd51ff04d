package filesystem

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
)

// inodes writes all inodes with what lies behind them, in the order of their places.
func (w *erofsWriter) inodes() error {
	out := bufio.NewWriterSize(io.NewOffsetWriter(w.im, erofsSuper+erofsSuperSize), 1<<20)
	at := int64(erofsSuper + erofsSuperSize)
	var buf []byte
	for i, n := range w.nodes {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if _, err := out.Write(make([]byte, n.at-at)); err != nil {
			return err
		}
		var err error
		if buf, err = w.appendInode(buf[:0], n, &w.plans[i]); err != nil {
			return fmt.Errorf("/%s: %w", n.path, err)
		}
		if _, err := out.Write(buf); err != nil {
			return err
		}
		at = n.at + int64(len(buf))
	}
	return out.Flush()
}

func (w *erofsWriter) appendInode(b []byte, n *node, p *erofsPlan) ([]byte, error) {
	xattrs, err := w.xattrs(n)
	if err != nil {
		return nil, err
	}
	count := 0
	if len(xattrs) > 0 {
		count = (len(xattrs)-erofsXattrHdr)/4 + 1
	}
	data := uint32(p.block)
	switch {
	case p.layout == erofsChunk:
		data = uint32(p.log)
	case !n.IsRegular() && !n.IsDir() && !n.IsSymlink():
		data = deviceNumber(n.Rdev)
	}
	b = le.AppendUint16(b, 1|p.layout<<1) // 1: extended
	b = le.AppendUint16(b, uint16(count))
	b = le.AppendUint16(b, uint16(n.Mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(p.size))
	b = le.AppendUint32(b, data)
	b = le.AppendUint32(b, n.number)
	b = le.AppendUint32(b, n.UID)
	b = le.AppendUint32(b, n.GID)
	b = le.AppendUint64(b, uint64(n.MtimeSec))
	b = le.AppendUint32(b, n.MtimeNsec)
	b = le.AppendUint32(b, n.nlink)
	b = append(b, make([]byte, 16)...)
	b = append(b, xattrs...)
	switch p.layout {
	case erofsInline:
		tail, err := w.tail(n, p)
		return append(b, tail...), err
	case erofsChunk:
		return p.appendChunks(b), nil
	}
	return b, nil
}

// appendChunks appends where each chunk of a sparse file begins.
func (p *erofsPlan) appendChunks(b []byte) []byte {
	runs, block := p.runs, p.block
	for first := int64(0); first < blocksOf(p.size); first += 1 << p.log {
		for len(runs) > 0 && runs[0].first+runs[0].n <= first {
			block += runs[0].n
			runs = runs[1:]
		}
		if len(runs) == 0 || runs[0].first > first {
			b = le.AppendUint32(b, erofsHole)
		} else {
			b = le.AppendUint32(b, uint32(block+first-runs[0].first))
		}
	}
	return b
}

// tail is what of a node's data lies behind its inode.
func (w *erofsWriter) tail(n *node, p *erofsPlan) ([]byte, error) {
	whole := p.size &^ (blockSize - 1)
	if !n.IsRegular() {
		data, err := w.text(n)
		if err != nil {
			return nil, err
		}
		return data[whole:], nil
	}
	b := make([]byte, p.inline)
	return b, w.readRange(&n.Inode, b, whole)
}

// text is the data of a directory or a symbolic link.
func (w *erofsWriter) text(n *node) ([]byte, error) {
	if n.IsDir() {
		return erofsDir(n), nil
	}
	target, err := w.view.Readlink(&n.Inode)
	return []byte(target), err
}

// xattrs are the attributes of a node as they follow its inode.
func (w *erofsWriter) xattrs(n *node) ([]byte, error) {
	var b []byte
	err := w.view.EachXattr(&n.Inode, func(prefix string, suffix, value []byte) {
		if b == nil {
			b = make([]byte, erofsXattrHdr)
		}
		b = append(b, byte(len(suffix)), xattrIndex(prefix), byte(len(value)), byte(len(value)>>8))
		b = append(append(b, suffix...), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	})
	return b, err
}

// xattrIndex is the number that EROFS and ext4 have for a prefix of attributes' names.
func xattrIndex(prefix string) byte {
	switch prefix {
	case "user.":
		return 1
	case "system.posix_acl_access":
		return xattrACLAccess
	case "system.posix_acl_default":
		return xattrACLDefault
	case "trusted.":
		return 4
	}
	return 6 // security.
}

const (
	xattrACLAccess  = 2
	xattrACLDefault = 3
)

// dirNames are the entries of a directory with "." and "..", sorted as EROFS wants them.
func dirNames(n *node) []entry {
	all := make([]entry, 0, len(n.entries)+2)
	dots := []entry{{[]byte("."), n}, {[]byte(".."), n.parent}}
	for _, e := range n.entries {
		for len(dots) > 0 && bytes.Compare(dots[0].name, e.name) < 0 {
			all = append(all, dots[0])
			dots = dots[1:]
		}
		all = append(all, e)
	}
	return append(all, dots...)
}

// erofsBlocks cuts entries of a directory into those that fit into a block each.
func erofsBlocks(entries []entry, yield func([]entry)) {
	size, from := 0, 0
	for i, e := range entries {
		need := erofsDirent + len(e.name)
		if size+need > blockSize {
			yield(entries[from:i])
			size, from = 0, i
		}
		size += need
	}
	yield(entries[from:])
}

func erofsDirSize(n *node) (size int64) {
	erofsBlocks(dirNames(n), func(entries []entry) {
		size = roundUp(size, blockSize)
		for _, e := range entries {
			size += erofsDirent + int64(len(e.name))
		}
	})
	return size
}

// erofsDir is the data of a directory: blocks of a table of entries and their names.
func erofsDir(n *node) []byte {
	var b []byte
	erofsBlocks(dirNames(n), func(entries []entry) {
		b = append(b, make([]byte, roundUp(int64(len(b)), blockSize)-int64(len(b)))...)
		name := erofsDirent * len(entries)
		for _, e := range entries {
			b = le.AppendUint64(b, uint64(e.at/erofsSlot))
			b = le.AppendUint16(b, uint16(name))
			b = append(b, typeOf(e.node), 0)
			name += len(e.name)
		}
		for _, e := range entries {
			b = append(b, e.name...)
		}
	})
	return b
}
