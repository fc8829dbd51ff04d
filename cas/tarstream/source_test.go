package tarstream

import (
	"bytes"
	"io"
)

// memSource is an archive in memory.
type memSource struct{ *bytes.Reader }

func newSource(b []byte) memSource { return memSource{bytes.NewReader(b)} }

func (s memSource) Skip(n int64) error {
	if n > int64(s.Len()) {
		s.Seek(0, io.SeekEnd)
		return io.ErrUnexpectedEOF
	}
	_, err := s.Seek(n, io.SeekCurrent)
	return err
}

// readAll reads an archive to its end; the entries are copies.
func readAll(b []byte) ([]Entry, error) {
	r := NewReader(newSource(b))
	var all []Entry
	for {
		e, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		c := *e
		c.Sparse = append([]Segment(nil), e.Sparse...)
		if e.Sparse != nil && c.Sparse == nil {
			c.Sparse = []Segment{}
		}
		c.Xattrs = append([]Xattr(nil), e.Xattrs...)
		all = append(all, c)
	}
}

// content returns what a reader of the entry's file would see.
func content(b []byte, e *Entry) []byte {
	if e.Sparse == nil {
		return b[e.DataOff : e.DataOff+e.DataLen]
	}
	out := make([]byte, e.Size)
	off := e.DataOff
	for _, s := range e.Sparse {
		copy(out[s.Off:s.Off+s.Len], b[off:off+s.Len])
		off += s.Len
	}
	return out
}
