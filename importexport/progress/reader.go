package progress

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// largeFile is from how many bytes on progress is shown from the beginning.
	largeFile = 64 << 20
	// patience is how long reading may take before progress is shown.
	patience = time.Second
)

// A Reader reads a file or a pipe and shows how that goes, unless it is soon
// done: what takes no time to read needs no display.
type Reader struct {
	r       io.Reader
	display Display
	size    int64 // -1: not known
	start   int64 // where the file was when reading began
	done    int64
	from    time.Time
	started bool
	ended   bool
}

// NewReader returns a reader of r that tells d. Where r is a regular file, the size is known.
func NewReader(r io.Reader, d Display) *Reader {
	f := &Reader{r: r, display: d, size: -1, from: time.Now()}
	if file, ok := r.(*os.File); ok {
		f.start, f.size = restOf(file)
	}
	return f
}

// restOf is where a regular file is, and how many bytes are still to be read: -1 where that
// cannot be told.
func restOf(f *os.File) (at, rest int64) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, -1
	}
	if at, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, -1
	}
	return at, max(info.Size()-at, 0)
}

// Read implements io.Reader.
func (f *Reader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.done += int64(n)
	if !f.started && err == nil && (f.size >= largeFile || f.done >= largeFile || time.Since(f.from) >= patience) {
		f.started = true
		f.display.Start(f.size)
	}
	if !f.started || f.ended {
		return n, err
	}
	f.display.Set(f.done)
	if errors.Is(err, io.EOF) {
		f.ended = true
		f.display.Complete()
	}
	return n, err
}

// Seek implements io.Seeker for what can be read again, as regular files can.
func (f *Reader) Seek(offset int64, whence int) (int64, error) {
	s, ok := f.r.(io.Seeker)
	if !ok || f.size < 0 {
		return 0, unix.ESPIPE
	}
	at, err := s.Seek(offset, whence)
	if err == nil {
		f.done = at - f.start
		if f.ended { // it is read once more
			f.started, f.ended = false, false
		}
	}
	return at, err
}

// Close ends the display. It does not close the file.
func (f *Reader) Close() { f.display.Close() }
