package tarstream

import (
	"fmt"
	"math"
)

// setSparse sets the map of a sparse file, in whichever of the formats it comes.
func (r *Reader) setSparse(flag byte, f format) error {
	p := &r.local
	const versioned = paxSparseMajor | paxSparseMinor
	const mapped = paxSparseMap | paxSparseBlocks | paxSparseSize
	switch {
	case flag == 'S' && f == formatGNU:
		return r.oldSparse(sparseGNU)
	case flag == 'S' && f == formatStar:
		return r.oldSparse(sparseStar)
	case flag == 'S':
		return fmt.Errorf("%w: sparse file in a header that is not GNU's or star's", ErrUnsupported)
	case p.set&(versioned|mapped) == 0:
		return nil
	case p.set&versioned == versioned && p.sparseMajor == 1 && p.sparseMinor == 0:
		return r.sparse10()
	case p.set&versioned == 0 || p.sparseMajor == 0 && p.sparseMinor <= 1:
		if p.set&paxSparseBlocks != 0 && p.sparseBlocks != int64(len(p.sparseMap)) || p.sparseOffSet {
			return fmt.Errorf("%w: %d segments where %d are announced", ErrSparse, len(p.sparseMap), p.sparseBlocks)
		}
		r.segments = append(r.segments[:0], p.sparseMap...)
		return r.finishSparse()
	}
	return fmt.Errorf("%w: sparse file of version %d.%d", ErrUnsupported, p.sparseMajor, p.sparseMinor)
}

// sparseLayout says where a header block has its part of the map.
type sparseLayout struct {
	entries, count, extended, realsize int
}

var (
	sparseGNU      = sparseLayout{386, 4, 482, 483}
	sparseStar     = sparseLayout{356, 4, 355, 452}
	sparseExtended = sparseLayout{0, 21, 504, 0}
)

// oldSparse reads the map from the header block and the extension blocks behind
// it, which the size field does not count.
func (r *Reader) oldSparse(l sparseLayout) error {
	real, ok := parseNumber(r.blk[l.realsize : l.realsize+12])
	if !ok || real < 0 {
		return fmt.Errorf("%w: real size %q", ErrSparse, r.blk[l.realsize:l.realsize+12])
	}
	if p := r.pax(paxRealsize); p != nil {
		real = p.realsize
	}
	r.local.set |= paxSparseSize
	r.local.dirty = true
	r.local.sparseSize = real
	r.segments = r.segments[:0]
	extended := true
	// Newer star has a name's prefix there, and all of the map in extensions.
	if l != sparseStar || r.blk[345] == 0 && r.blk[l.entries+10] != 0 {
		if err := r.addSegments(l); err != nil {
			return err
		}
		extended = r.blk[l.extended] != 0
	}
	for extended {
		if r.end > math.MaxInt64-2*blockSize {
			return fmt.Errorf("%w: size %d", ErrHeader, r.entry.Size)
		}
		if _, err := r.readFull(r.blk[:]); err != nil {
			return err
		}
		r.end += blockSize
		if err := r.addSegments(sparseExtended); err != nil {
			return err
		}
		extended = r.blk[sparseExtended.extended] != 0
	}
	r.entry.DataOff = r.off
	return r.finishSparse()
}

func (r *Reader) addSegments(l sparseLayout) error {
	for i := range l.count {
		s := r.blk[l.entries+24*i:][:24]
		if s[0] == 0 {
			return nil // unused, and so are those behind it
		}
		off, ok1 := parseNumber(s[:12])
		n, ok2 := parseNumber(s[12:])
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: segment %q", ErrSparse, s)
		}
		if err := r.addSegment(off, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) addSegment(off, n int64) error {
	if len(r.segments) >= MaxSegments {
		return fmt.Errorf("%w: sparse map of more than %d segments", ErrTooLong, MaxSegments)
	}
	r.segments = append(r.segments, Segment{off, n})
	return nil
}

// sparse10 reads the map of version 1.0, which stands before the data and counts
// as part of it: decimal numbers each with a newline, the count of segments, then
// offset and length of each, padded to whole blocks.
func (r *Reader) sparse10() error {
	r.segments = r.segments[:0]
	m := mapParser{left: r.entry.DataLen}
	count, err := m.number(r)
	if err != nil {
		return err
	}
	if count > MaxSegments {
		return fmt.Errorf("%w: sparse map of %d segments, at most %d are read", ErrTooLong, count, MaxSegments)
	}
	for range count {
		off, err := m.number(r)
		if err != nil {
			return err
		}
		n, err := m.number(r)
		if err != nil {
			return err
		}
		if err := r.addSegment(off, n); err != nil {
			return err
		}
	}
	r.entry.DataOff = r.off
	r.entry.DataLen = m.left
	return r.finishSparse()
}

// mapParser reads numbers from the blocks before the data.
type mapParser struct {
	left int64  // bytes of the entry behind rest
	rest []byte // of the block in Reader.blk
}

func (m *mapParser) number(r *Reader) (int64, error) {
	var n int64
	for digits := 0; ; digits++ {
		if len(m.rest) == 0 {
			if m.left < blockSize {
				return 0, fmt.Errorf("%w: it ends behind %d segments", ErrSparse, len(r.segments))
			}
			if _, err := r.readFull(r.blk[:]); err != nil {
				return 0, err
			}
			m.left -= blockSize
			m.rest = r.blk[:]
		}
		c := m.rest[0]
		m.rest = m.rest[1:]
		if c == '\n' && digits > 0 {
			return n, nil
		}
		d := int64(c) - '0'
		if d < 0 || d > 9 || digits > 20 || n > (math.MaxInt64-d)/10 {
			return 0, fmt.Errorf("%w: byte %q in number", ErrSparse, c)
		}
		n = n*10 + d
	}
}

// finishSparse checks the map in r.segments against the sizes and drops empty
// segments, with which writers mark a hole at the end.
func (r *Reader) finishSparse() error {
	e := &r.entry
	if r.local.set&paxSparseSize == 0 {
		return fmt.Errorf("%w: the file's size is missing", ErrSparse)
	}
	e.Size = r.local.sparseSize
	kept := r.segments[:0]
	var end, total int64
	for i, s := range r.segments {
		if s.Off < end || s.Len < 0 || s.Len > e.Size-s.Off {
			return fmt.Errorf("%w: segment %d, offset %d, length %d, in a file of %d bytes, behind %d", ErrSparse, i, s.Off, s.Len, e.Size, end)
		}
		end = s.Off + s.Len
		total += s.Len
		if s.Len > 0 {
			kept = append(kept, s)
		}
	}
	if total != e.DataLen {
		return fmt.Errorf("%w: segments of %d bytes for data of %d", ErrSparse, total, e.DataLen)
	}
	if kept == nil {
		kept = []Segment{}
	}
	r.segments = kept
	e.Sparse = kept
	return nil
}
