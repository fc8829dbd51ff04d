package cas

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/ihucos/plash/cas/tarstream"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// chunkSize is how many bytes travel together from reading to hashing, writing
// and parsing; queueLen is how many chunks may wait at each.
const (
	chunkSize = 1 << 20
	queueLen  = 4
)

// chunk is a piece of the stream that several stages look at.
type chunk struct {
	b    []byte // its content
	buf  []byte // its memory
	refs atomic.Int32
}

var chunkPool = sync.Pool{New: func() any { return &chunk{buf: make([]byte, chunkSize)} }}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		chunkPool.Put(c)
	}
}

// pump reads r to its end and hands each piece to hashing, to the parser and to
// writing, which run at the same time. It returns the first error of any stage;
// an error of reading goes before what it causes in the parser.
func pump(r io.Reader, w *os.File, parse func(src *chunkSource) error) (digest.Digest, int64, error) {
	var (
		toHash  = make(chan *chunk, queueLen)
		toWrite = make(chan *chunk, queueLen)
		src     = &chunkSource{chunks: make(chan *chunk, queueLen)}
		stop    = make(chan struct{})
		once    sync.Once
		wg      sync.WaitGroup
		sum     = sha256.New()

		writeErr, parseErr error
	)
	abort := func() { once.Do(func() { close(stop) }) }
	wg.Add(3)
	go func() {
		defer wg.Done()
		for c := range toHash {
			sum.Write(c.b)
			c.release()
		}
	}()
	go func() {
		defer wg.Done()
		var pos int64
		for c := range toWrite {
			if writeErr == nil {
				if writeErr = writeChunk(w, c.b, pos); writeErr != nil {
					abort()
				}
			}
			pos += int64(len(c.b))
			c.release()
		}
	}()
	go func() {
		defer wg.Done()
		if parseErr = parse(src); parseErr != nil {
			abort()
		}
		if err := src.drain(); parseErr == nil && err != nil {
			parseErr = err
			abort()
			src.drain()
		}
	}()

	size, readErr := feed(r, stop, toHash, toWrite, src.chunks)
	src.err = readErr
	close(toHash)
	close(toWrite)
	close(src.chunks)
	wg.Wait()
	var at *tarstream.Error
	switch {
	case readErr != nil && errors.As(parseErr, &at):
		// The parser knows how far it came, reading knows why no further.
		return "", 0, &tarstream.Error{Offset: at.Offset, Name: at.Name, Err: readErr}
	case readErr != nil:
		return "", 0, readErr
	case writeErr != nil:
		return "", 0, writeErr
	case parseErr != nil:
		return "", 0, parseErr
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum.Sum(nil))), size, nil
}

// feed reads r in chunks and sends them on, until its end or until a stage
// has given up.
func feed(r io.Reader, stop <-chan struct{}, to ...chan<- *chunk) (size int64, err error) {
	for {
		c := chunkPool.Get().(*chunk)
		n, err := readChunk(r, c.buf)
		if n > 0 {
			c.b = c.buf[:n]
			c.refs.Store(int32(len(to)))
			for i, ch := range to {
				select {
				case ch <- c:
				case <-stop:
					c.refs.Add(int32(i - len(to) + 1))
					c.release()
					return size, nil
				}
			}
			size += int64(n)
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, fmt.Errorf("read: %w", err)
		}
	}
}

// readChunk fills p as far as the stream goes. Unlike [io.ReadFull] it tells a
// clean end from one that the reader itself calls unexpected, as that of a
// compressed stream which is cut off.
func readChunk(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// flushEvery is how many bytes are written between two requests to the kernel to begin
// to write them to disk, so that the final sync finds little left to do.
const flushEvery = 16 << 20

func writeChunk(w *os.File, b []byte, pos int64) error {
	if _, err := w.WriteAt(b, pos); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	if end := pos + int64(len(b)); end/flushEvery != pos/flushEvery {
		from := pos / flushEvery * flushEvery
		// A hint: where it is not supported, the sync at the end does it all.
		_ = unix.SyncFileRange(int(w.Fd()), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// chunkSource gives the parser the chunks as a stream.
type chunkSource struct {
	chunks chan *chunk
	cur    *chunk
	rest   []byte
	err    error // why the stream ended early; set before chunks is closed
}

// fill makes rest not empty, or returns why it cannot.
func (s *chunkSource) fill() error {
	for len(s.rest) == 0 {
		if s.cur != nil {
			s.cur.release()
			s.cur = nil
		}
		c, ok := <-s.chunks
		if !ok {
			if s.err != nil {
				return s.err
			}
			return io.EOF
		}
		s.cur, s.rest = c, c.b
	}
	return nil
}

func (s *chunkSource) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *chunkSource) Skip(n int64) error {
	for n > 0 {
		if err := s.fill(); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		k := min(n, int64(len(s.rest)))
		s.rest = s.rest[k:]
		n -= k
	}
	return nil
}

// maxTrailer is how many bytes may follow the end of an archive. Programs pad it to
// whole records, some to megabytes; without a limit a stream of zeros is endless.
const maxTrailer = 64 << 20

// drain takes what is left, so that the reading side does not wait. It stops with
// an error if that is too much.
func (s *chunkSource) drain() error {
	for left := int64(0); s.fill() == nil; s.rest = nil {
		if left += int64(len(s.rest)); left > maxTrailer {
			return fmt.Errorf("more than %d bytes behind the end of the archive", maxTrailer)
		}
	}
	return nil
}
