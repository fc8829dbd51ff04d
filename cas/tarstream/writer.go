package tarstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// ErrSize says that the data written for an entry is not as long as its header
// says.
var ErrSize = errors.New("data is not as long as announced")

// Writer writes a tar stream: ustar, with a PAX header for what ustar cannot
// hold. There is no user or group name, no access or change time, nothing of the
// host: the same entries give the same bytes.
//
// Names are written as the bytes they are. They stand in the ustar header where
// they fit, which all readers take; only a longer one that is not UTF-8 needs a
// PAX record, which is then marked by hdrcharset=BINARY.
//
// Output is buffered; Close writes the rest of it.
type Writer struct {
	w    *bufio.Writer
	err  error // what all further calls return
	blk  block
	pax  paxBuilder
	name string // of the current entry

	left   int64 // data the caller has yet to write for it
	pad    int64 // zeros behind the data
	runs   []run // how a sparse file's data is laid out; none: it is not sparse
	run    int   // the one that comes next
	segs   []Segment
	mapBuf []byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 256<<10)}
}

// WriteHeader begins a new entry. The name is written as it stands: directories
// by custom end in a slash, and nothing else may. DataOff, DataLen and HeaderOff
// are ignored, as are Size and Sparse unless it is a regular file, Linkname
// unless it is a link, and the device number unless it is a device.
//
// If Sparse is not nil, the file is written as a GNU sparse file of PAX version
// 1.0. That format keeps the data of each segment in whole blocks of 512 bytes, so
// each segment's data is aligned at 512 in the stream. A segment whose length is
// not a multiple of 512, and that does not reach the end of the file, is made
// longer by zeros taken from the hole behind it.
//
// An error about the entry itself leaves the stream as it was, and another entry
// may be written.
func (w *Writer) WriteHeader(e *Entry) error {
	if err := w.finishEntry(); err != nil {
		return err
	}
	if err := w.buildHeader(e); err != nil {
		return fmt.Errorf("write tar entry %q: %w", e.Name, err)
	}
	w.name = e.Name
	return nil
}

func (w *Writer) buildHeader(e *Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	var left, stored int64
	w.runs, w.run, w.mapBuf = w.runs[:0], 0, w.mapBuf[:0]
	sparse := e.Type == TypeReg && e.Sparse != nil
	switch {
	case sparse:
		var err error
		if left, stored, err = w.planSparse(e); err != nil {
			return err
		}
	case e.Type == TypeReg:
		left, stored = e.Size, e.Size
	}
	if stored > math.MaxInt64-blockSize {
		return fmt.Errorf("%w: size %d", ErrHeader, stored)
	}
	w.pax.reset()
	w.blk = block{}
	w.fillNames(e, sparse)
	w.fillNumbers(e, stored)
	for _, x := range e.Xattrs {
		w.pax.add("SCHILY.xattr."+encodeXattrName(x.Name), x.Value)
	}
	records := w.pax.records()
	if len(records) > MaxHeader {
		return fmt.Errorf("%w: PAX header of %d bytes, at most %d can be read", ErrTooLong, len(records), MaxHeader)
	}
	w.left, w.pad = left, roundUp(stored)-stored
	if len(records) > 0 {
		w.writePAX(e.Name, records)
	}
	w.blk.setSum()
	w.write(w.blk[:])
	w.write(w.mapBuf)
	return w.err
}

// checkEntry refuses what no reader would take as it is meant.
func checkEntry(e *Entry) error {
	link := e.Type == TypeLink || e.Type == TypeSymlink
	switch {
	case e.Type < TypeReg || e.Type > TypeFifo:
		return fmt.Errorf("%w: type %q", ErrUnsupported, e.Type)
	case e.Name == "" || strings.IndexByte(e.Name, 0) >= 0:
		return fmt.Errorf("%w: name is empty or has a NUL", ErrHeader)
	case e.Type != TypeDir && strings.HasSuffix(e.Name, "/"):
		return fmt.Errorf("%w: the name ends in a slash but it is no directory", ErrHeader)
	case link && (e.Linkname == "" || strings.IndexByte(e.Linkname, 0) >= 0):
		return fmt.Errorf("%w: link target %q", ErrHeader, e.Linkname)
	case len(e.Name) > MaxName || link && len(e.Linkname) > MaxName:
		return fmt.Errorf("%w: name of %d bytes", ErrTooLong, max(len(e.Name), len(e.Linkname)))
	case e.Mode&^0o7777 != 0:
		return fmt.Errorf("%w: mode %o", ErrHeader, e.Mode)
	case e.UID == math.MaxUint32 || e.GID == math.MaxUint32:
		return fmt.Errorf("%w: owner %d:%d", ErrHeader, e.UID, e.GID)
	case e.MtimeNsec >= 1e9:
		return fmt.Errorf("%w: %d nanoseconds", ErrHeader, e.MtimeNsec)
	case e.Type == TypeReg && e.Size < 0:
		return fmt.Errorf("%w: size %d", ErrHeader, e.Size)
	}
	for i, x := range e.Xattrs {
		if x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 {
			return fmt.Errorf("%w: extended attribute %q", ErrHeader, x.Name)
		}
		if i > 0 && e.Xattrs[i-1].Name >= x.Name {
			return fmt.Errorf("%w: extended attribute %q is not in order", ErrHeader, x.Name)
		}
	}
	return nil
}

// Write writes data of the current entry: Size bytes in all, or for a sparse file
// the segments' bytes one behind the other. More is ErrSize.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n := int64(len(p))
	if n > w.left {
		n = w.left
	}
	for rest := p[:n]; len(rest) > 0; {
		m := w.dataRun(int64(len(rest)))
		w.write(rest[:m])
		w.wrote(m)
		rest = rest[m:]
	}
	if w.err != nil {
		return 0, w.err
	}
	if n < int64(len(p)) {
		return int(n), w.tooMuch()
	}
	return int(n), nil
}

// ReadFrom writes all that r has as data of the current entry, as Write does.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for w.err == nil && w.left > 0 {
		l := io.LimitedReader{R: r, N: w.dataRun(w.left)}
		want := l.N
		n, err := w.w.ReadFrom(&l)
		w.wrote(n)
		total += n
		if err != nil {
			return total, fmt.Errorf("data of tar entry %q: %w", w.name, err)
		}
		if n < want {
			return total, nil // Close or the next WriteHeader finds it too short
		}
	}
	if w.err != nil {
		return total, w.err
	}
	var probe [1]byte
	n, err := io.ReadFull(r, probe[:])
	switch {
	case n > 0:
		return total, w.tooMuch()
	case err != io.EOF:
		return total, fmt.Errorf("data of tar entry %q: %w", w.name, err)
	}
	return total, nil
}

func (w *Writer) tooMuch() error {
	return fmt.Errorf("data of tar entry %q: %w: there is more", w.name, ErrSize)
}

// Close ends the archive with two zero blocks and writes out the buffer. It is an
// error if the last entry's data is too short. The io.Writer below stays open.
func (w *Writer) Close() error {
	if err := w.finishEntry(); err != nil {
		return err
	}
	w.write(zeroBlock[:])
	w.write(zeroBlock[:])
	if w.err != nil {
		return w.err
	}
	if err := w.w.Flush(); err != nil {
		w.err = fmt.Errorf("write tar: %w", err)
		return w.err
	}
	w.err = errors.New("write tar: the writer is closed")
	return nil
}

// finishEntry checks that the current entry has all its data, and pads it.
func (w *Writer) finishEntry() error {
	if w.err != nil {
		return w.err
	}
	if w.left > 0 {
		return fmt.Errorf("data of tar entry %q: %w: %d bytes are missing", w.name, ErrSize, w.left)
	}
	w.writeZeros(w.pad)
	w.pad = 0
	return w.err
}

func (w *Writer) write(p []byte) {
	if w.err != nil || len(p) == 0 {
		return
	}
	if _, err := w.w.Write(p); err != nil {
		w.err = fmt.Errorf("write tar: %w", err)
	}
}

func (w *Writer) writeZeros(n int64) {
	for n > 0 && w.err == nil {
		m := min(n, blockSize)
		w.write(zeroBlock[:m])
		n -= m
	}
}
