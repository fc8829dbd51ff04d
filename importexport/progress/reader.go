package progress

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A Reader reads a file or a pipe and shows how that goes, see [Meter].
type Reader struct {
	r     io.Reader
	meter *Meter
	start int64 // where r was when reading began; -1: it cannot be read again
}

// NewReader returns a reader of r that tells d. Where r is a regular file, the size is known.
func NewReader(r io.Reader, d Display) *Reader {
	start, size := int64(-1), int64(-1)
	if file, ok := r.(*os.File); ok {
		start, size = restOf(file)
	}
	return &Reader{r, NewMeter(d, size), start}
}

// restOf is where a regular file is, and how many bytes are still to be read: -1 where that
// cannot be told.
func restOf(f *os.File) (at, rest int64) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1, -1
	}
	if at, err = f.Seek(0, io.SeekCurrent); err != nil {
		return -1, -1
	}
	return at, max(info.Size()-at, 0)
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

// Seek implements io.Seeker for what can be read again, as regular files can.
func (f *Reader) Seek(offset int64, whence int) (int64, error) {
	s, ok := f.r.(io.Seeker)
	if !ok || f.start < 0 {
		return 0, unix.ESPIPE
	}
	at, err := s.Seek(offset, whence)
	if err == nil {
		f.meter.back(at - f.start)
	}
	return at, err
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
