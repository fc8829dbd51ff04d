package tarstream

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Source is the stream a Reader reads.
type Source interface {
	io.Reader
	// Skip passes over n bytes. It returns io.ErrUnexpectedEOF if the stream ends
	// before them.
	Skip(n int64) error
}

// Reader parses a tar stream. It reads no further than the end marker, whose
// rest (the padding of the last record) is the caller's to drain.
type Reader struct {
	// Unpadded takes the end of the stream in the padding behind an entry for a clean one: umoci
	// insert leaves out that padding and the end marker.
	Unpadded bool

	src Source
	off int64 // consumed so far
	end int64 // where the data and padding of the current entry end
	pad int64 // how much of that is padding
	err error // what all further calls of Next return

	ended bool // whether an end marker was read

	entry    Entry
	blk      block
	buf      []byte // payload of PAX and GNU headers
	segments []Segment
	xattrs   []Xattr

	local, global      paxFields
	longName, longLink string // of GNU 'L' and 'K' headers
}

// NewReader returns a Reader of src, which is at the start of the archive.
func NewReader(src Source) *Reader {
	return &Reader{src: src}
}

// Offset returns how many bytes of the stream have been consumed: after Next,
// where the entry's data begins.
func (r *Reader) Offset() int64 { return r.off }

// Next passes over the data of the previous entry and returns the next one. The
// Entry and its slices belong to the Reader and are valid until the next call;
// strings and the values of Xattrs are not touched any more and may be kept.
//
// It returns io.EOF after the end marker, or at a clean end of the stream between
// two entries if there was at least one entry or zero block. Any other error is
// an *Error, and is returned by all further calls too.
func (r *Reader) Next() (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.err = r.next(); r.err != nil {
		return nil, r.err
	}
	return &r.entry, nil
}

func (r *Reader) next() error {
	if err := r.skipTo(r.end - r.pad); err != nil {
		return r.fail(r.entry.HeaderOff, r.entry.Name, err)
	}
	if err := r.skipTo(r.end); r.Unpadded && errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	} else if err != nil {
		return r.fail(r.entry.HeaderOff, r.entry.Name, err)
	}
	start := r.off
	pending := false // whether a header was read that belongs to the next entry
	r.resetPending()
	for {
		at := r.off
		if !pending {
			start = at
		}
		if err := r.readHeader(pending); err != nil {
			if err == io.EOF {
				return err
			}
			return r.fail(start, r.blockName(), err)
		}
		var err error
		switch flag := r.blk.flag(); flag {
		case 'x', 'X': // 'X' is Solaris' name for the same
			pending = true
			r.local.reset()
			err = r.readPAX(&r.local, false)
		case 'g':
			err = r.readPAX(&r.global, true)
		case 'L':
			pending = true
			r.longName, err = r.readLongName()
		case 'K':
			pending = true
			r.longLink, err = r.readLongName()
		case 'V', 'N': // volume label, old GNU long names
			err = r.skipPayload()
			pending = false
			r.resetPending()
		default:
			r.entry.HeaderOff = start
			if err := r.readEntry(flag); err != nil {
				return r.fail(start, r.entry.Name, err)
			}
			return nil
		}
		if err != nil {
			return r.fail(at, r.blockName(), err)
		}
	}
}

func (r *Reader) resetPending() {
	r.local.reset()
	r.longName, r.longLink = "", ""
}

// fail makes an *Error of err, and ErrTruncated of an unexpected end.
func (r *Reader) fail(off int64, name string, err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it ends before this entry does", ErrTruncated)
	}
	return &Error{Offset: off, Name: name, Err: err}
}

// blockName is the best name for an error before the entry's own is known.
func (r *Reader) blockName() string {
	switch {
	case r.local.set&paxPath != 0:
		return r.local.path
	case r.longName != "":
		return r.longName
	case r.blk.checkSum():
		return string(cstring(r.blk.name()))
	}
	return ""
}

// readHeader reads the next header block and checks its sum. It returns io.EOF
// at the end of the archive.
func (r *Reader) readHeader(pending bool) error {
	n, err := r.readFull(r.blk[:])
	switch {
	case err == io.EOF && n == 0 && !pending && r.off > 0:
		return io.EOF
	case (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)) && r.off == int64(n):
		if n == 0 {
			return fmt.Errorf("%w: not a tar archive: empty input (%w)", ErrHeader, ErrTruncated)
		}
		return fmt.Errorf("%w: not a tar archive: only %d bytes (%w)", ErrHeader, n, ErrTruncated)
	case err != nil:
		clear(r.blk[n:])
		return unexpected(err)
	}
	if r.blk.isZero() {
		return r.readEnd(pending)
	}
	if !r.blk.checkSum() {
		if r.off == blockSize {
			return fmt.Errorf("%w: not a tar archive: wrong checksum", ErrHeader)
		}
		return fmt.Errorf("%w: wrong checksum", ErrHeader)
	}
	return nil
}

// readEnd reads the second block of the end marker.
func (r *Reader) readEnd(pending bool) error {
	if pending {
		return fmt.Errorf("%w: end marker behind an extended header", ErrHeader)
	}
	n, err := r.readFull(r.blk[:])
	switch {
	case err == io.EOF && n == 0: // all entries are there
	case err != nil:
		clear(r.blk[n:])
		return unexpected(err)
	case !r.blk.isZero():
		return fmt.Errorf("%w: a single zero block before it", ErrHeader)
	}
	r.ended = true
	return io.EOF
}

// Ended reports whether the end that Next has told of is marked by a block of
// zeros, as it must be (by two). Otherwise the stream just ends behind an entry, which some
// programs do and others take for an end, and which may also be where it was cut.
func (r *Reader) Ended() bool { return r.ended }

// unexpected keeps an end of the stream from being taken for a clean one.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) readFull(p []byte) (int, error) {
	n, err := io.ReadFull(r.src, p)
	r.off += int64(n)
	return n, err
}

func (r *Reader) skipTo(off int64) error {
	if off <= r.off {
		return nil
	}
	if err := r.src.Skip(off - r.off); err != nil {
		return err
	}
	r.off = off
	return nil
}

// payloadSize returns the size field of a header that is followed by a payload.
func (r *Reader) payloadSize() (int64, error) {
	size, ok := parseNumber(r.blk.size())
	if !ok || size < 0 {
		return 0, fmt.Errorf("%w: size %q", ErrHeader, r.blk.size())
	}
	return size, nil
}

// readPayload reads the data of a PAX or GNU header into r.buf, which grows only
// as data comes.
func (r *Reader) readPayload() error {
	size, err := r.payloadSize()
	if err != nil {
		return err
	}
	if size > MaxHeader {
		return fmt.Errorf("%w: extended header of %d bytes, at most %d are read", ErrTooLong, size, MaxHeader)
	}
	r.buf = r.buf[:0]
	for padded := int(roundUp(size)); len(r.buf) < padded; {
		n := min(padded-len(r.buf), 64<<10)
		have := len(r.buf)
		if cap(r.buf)-have < n {
			r.buf = append(r.buf, make([]byte, n)...)
		} else {
			r.buf = r.buf[:have+n]
		}
		if _, err := r.readFull(r.buf[have:]); err != nil {
			return err
		}
	}
	r.buf = r.buf[:size]
	return nil
}

func (r *Reader) skipPayload() error {
	size, err := r.payloadSize()
	if err != nil {
		return err
	}
	if size > math.MaxInt64-r.off-blockSize {
		return fmt.Errorf("%w: size %d", ErrHeader, size)
	}
	return r.skipTo(r.off + roundUp(size))
}

func (r *Reader) readLongName() (string, error) {
	if err := r.readPayload(); err != nil {
		return "", err
	}
	name := cstring(r.buf)
	if len(name) > MaxName {
		return "", fmt.Errorf("%w: name of %d bytes", ErrTooLong, len(name))
	}
	return string(name), nil
}

// roundUp rounds up to whole blocks. n must be at most math.MaxInt64-blockSize.
func roundUp(n int64) int64 {
	return (n + blockSize - 1) &^ (blockSize - 1)
}
