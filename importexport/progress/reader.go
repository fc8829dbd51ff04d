package progress

import (
	"errors"
	"io"
	"os"
)

// A Reader reads a file or a pipe and shows how that goes, see [Meter].
type Reader struct {
	r     io.Reader
	meter *Meter
}

// NewReader returns a reader of r that tells d. Where r is a regular file, the size is known.
func NewReader(r io.Reader, d Display) *Reader {
	size := int64(-1)
	if file, ok := r.(*os.File); ok {
		size = restOf(file)
	}
	return &Reader{r, NewMeter(d, size)}
}

// restOf is how many bytes of a regular file are still to be read, -1 where that
// cannot be told.
func restOf(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	return max(info.Size()-at, 0)
}

// Read implements io.Reader.
func (f *Reader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.meter.Add(int64(n))
	if errors.Is(err, io.EOF) {
		f.meter.Complete()
	}
	return n, err
}

// Close ends the display. It does not close the file.
func (f *Reader) Close() { f.meter.Close() }

// Count returns a reader of r whose bytes m counts.
func Count(r io.Reader, m *Meter) io.Reader { return &counted{r, m} }

type counted struct {
	r io.Reader
	m *Meter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.Add(int64(n))
	return n, err
}
