package tarstream

import (
	"fmt"
	"math"
	"strconv"
)

// run is a piece of a sparse file's data in the stream: bytes of the caller, and
// zeros behind them.
type run struct{ data, zeros int64 }

// planSparse lays out a sparse file: the map in w.mapBuf, padded to whole blocks,
// and w.runs. It returns how many bytes the caller has to write, and how many the
// file takes in the stream, its map included.
//
// GNU tar reads each segment from the start of a block, other readers take them
// one right behind the other. Both are right if each but the last is whole blocks.
func (w *Writer) planSparse(e *Entry) (left, stored int64, err error) {
	w.segs = w.segs[:0]
	var end int64     // of the input's segment before
	var dataEnd int64 // of the last in w.segs, without the zeros that fill its last block
	for i, s := range e.Sparse {
		if s.Off < end || s.Len < 0 || s.Len > e.Size-s.Off {
			return 0, 0, fmt.Errorf("%w: segment %d, offset %d, length %d, in a file of %d bytes", ErrSparse, i, s.Off, s.Len, e.Size)
		}
		end = s.Off + s.Len
		if s.Len == 0 {
			continue
		}
		left += s.Len
		if n := len(w.segs); n > 0 {
			filled := fillBlock(w.segs[n-1].Off, dataEnd, e.Size)
			if s.Off < filled {
				w.addZeros(s.Off - dataEnd)
				w.addData(s.Len)
				dataEnd = end
				w.segs[n-1].Len = dataEnd - w.segs[n-1].Off
				continue
			}
			w.addZeros(filled - dataEnd)
			w.segs[n-1].Len = filled - w.segs[n-1].Off
		}
		w.segs = append(w.segs, s)
		w.addData(s.Len)
		dataEnd = end
	}
	if n := len(w.segs); n > 0 {
		filled := fillBlock(w.segs[n-1].Off, dataEnd, e.Size)
		w.addZeros(filled - dataEnd)
		w.segs[n-1].Len = filled - w.segs[n-1].Off
		end = filled
	}
	// GNU tar makes a hole at the end only where an empty segment says so.
	if len(w.segs) == 0 || end < e.Size {
		w.segs = append(w.segs, Segment{Off: e.Size})
	}
	stored, err = w.buildMap()
	return left, stored, err
}

// fillBlock returns where a segment from off to end ends if it is made whole
// blocks, as far as the file goes.
func fillBlock(off, end, size int64) int64 {
	return end + min(-(end-off)&(blockSize-1), size-end)
}

func (w *Writer) addData(n int64) {
	if last := len(w.runs) - 1; last >= 0 && w.runs[last].zeros == 0 {
		w.runs[last].data += n
	} else {
		w.runs = append(w.runs, run{data: n})
	}
}

func (w *Writer) addZeros(n int64) {
	w.runs[len(w.runs)-1].zeros += n
}

// buildMap makes the map of w.segs and returns the length of map and data.
func (w *Writer) buildMap() (stored int64, err error) {
	if len(w.segs) > MaxSegments {
		return 0, fmt.Errorf("%w: sparse map of %d segments, at most %d can be read", ErrTooLong, len(w.segs), MaxSegments)
	}
	m := append(strconv.AppendInt(w.mapBuf, int64(len(w.segs)), 10), '\n')
	for _, s := range w.segs {
		m = append(strconv.AppendInt(m, s.Off, 10), '\n')
		m = append(strconv.AppendInt(m, s.Len, 10), '\n')
		stored += s.Len
	}
	m = append(m, zeroBlock[:roundUp(int64(len(m)))-int64(len(m))]...)
	w.mapBuf = m
	if stored > math.MaxInt64-int64(len(m)) {
		return 0, fmt.Errorf("%w: segments of %d bytes", ErrSparse, stored)
	}
	return stored + int64(len(m)), nil
}

// dataRun returns how many of n bytes of data can be written before zeros are due.
func (w *Writer) dataRun(n int64) int64 {
	if len(w.runs) == 0 {
		return n
	}
	return min(n, w.runs[w.run].data)
}

// wrote notes n bytes of data as written, and writes the zeros behind them.
func (w *Writer) wrote(n int64) {
	w.left -= n
	if len(w.runs) == 0 || n == 0 {
		return
	}
	r := &w.runs[w.run]
	if r.data -= n; r.data == 0 {
		w.writeZeros(r.zeros)
		w.run++
	}
}
