package registry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/klauspost/compress/flate"
)

const (
	// gzipBlock is how many bytes are compressed by themselves.
	gzipBlock = 1 << 20
	// gzipWindow is how far back DEFLATE can refer.
	gzipWindow = 32 << 10
)

// gzipHeader is that of a file without name and time (RFC 1952, 2.3).
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// A gzipWriter compresses with all cores: block by block, each with the end of the one before
// it as dictionary, and put together they are one DEFLATE stream, as pigz has it. The
// result depends on the bytes alone, not on how they are written or how many cores there are.
type gzipWriter struct {
	block, before []byte
	sum           uint32
	size          uint32 // modulo 2^32
	pending       chan chan gzipResult
	done          chan error
	ended         bool
}

type gzipResult struct {
	b   []byte
	err error
}

func newGzipWriter(w io.Writer) *gzipWriter {
	z := &gzipWriter{
		block:   make([]byte, 0, gzipBlock),
		pending: make(chan chan gzipResult, 2*runtime.GOMAXPROCS(0)),
		done:    make(chan error, 1),
	}
	go z.collect(w)
	return z
}

// collect writes the blocks in their order.
func (z *gzipWriter) collect(w io.Writer) {
	_, err := w.Write(gzipHeader)
	for result := range z.pending {
		r := <-result
		if err == nil {
			err = r.err
		}
		if err == nil {
			_, err = w.Write(r.b)
		}
	}
	z.done <- err
}

// Write implements io.Writer. What goes wrong is told by Close.
func (z *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	z.sum = crc32.Update(z.sum, crc32.IEEETable, p)
	z.size += uint32(n)
	for len(p) > 0 {
		if len(z.block) == gzipBlock {
			z.flush(false)
		}
		k := min(len(p), gzipBlock-len(z.block))
		z.block = append(z.block, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

// flush has a block compressed.
func (z *gzipWriter) flush(last bool) {
	block, before := z.block, z.before
	result := make(chan gzipResult, 1)
	z.pending <- result
	go func() {
		b, err := deflate(block, before, last)
		result <- gzipResult{b, err}
	}()
	z.before = block[max(0, len(block)-gzipWindow):]
	z.block = make([]byte, 0, gzipBlock)
}

// deflate compresses one block of a stream.
func deflate(block, before []byte, last bool) ([]byte, error) {
	var out bytes.Buffer
	// A new one each time: what one that is used again makes may depend on what it made before.
	w, err := flate.NewWriterDict(&out, flate.DefaultCompression, before)
	if err == nil {
		_, err = w.Write(block)
	}
	if err == nil && !last {
		err = w.Flush() // ends at a byte
	} else if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

// Close ends the stream, and must be called in any case.
func (z *gzipWriter) Close() error {
	if z.ended {
		return errors.New("gzip: closed twice")
	}
	z.ended = true
	z.flush(true)
	result := make(chan gzipResult, 1)
	trailer := binary.LittleEndian.AppendUint32(nil, z.sum)
	result <- gzipResult{b: binary.LittleEndian.AppendUint32(trailer, z.size)}
	z.pending <- result
	close(z.pending)
	return <-z.done
}
