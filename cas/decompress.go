package cas

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ErrCompression says that a stream is compressed in a way that is not supported.
var ErrCompression = errors.New("not supported")

// compressions tells a compressed stream by its first bytes. What has no open is
// known by name only.
var compressions = [...]struct {
	name, magic string
	open        func(io.Reader) (content io.Reader, done func(), err error)
}{
	{"gzip", "\x1f\x8b", openGzip},
	{"zstd", "\x28\xb5\x2f\xfd", openZstd},
	{"xz", "\xfd7zXZ\x00", openXZ},
	{"bzip2", "BZh", openBzip2},
	{"lzma", "\x5d\x00\x00", nil},
	{"lzip", "LZIP", nil},
	{"lz4", "\x04\x22\x4d\x18", nil},
	{"compress (.Z)", "\x1f\x9d", nil},
	{"zip", "PK\x03\x04", nil},
	{"7z", "7z\xbc\xaf", nil},
	{"squashfs", "hsqs", nil},
}

func nothing() {}

func openGzip(r io.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	return z, nothing, err
}

func openZstd(r io.Reader) (io.Reader, func(), error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(1<<30))
	if err != nil {
		return nil, nil, err
	}
	return z, z.Close, nil
}

func openXZ(r io.Reader) (io.Reader, func(), error) {
	z, err := xz.NewReader(r)
	return z, nothing, err
}

func openBzip2(r io.Reader) (io.Reader, func(), error) { return bzip2.NewReader(r), nothing, nil }

// Compression tells by the first six bytes of a stream how it is compressed: "gzip", "zstd", …; "" if
// it is not.
func Compression(head []byte) string {
	for _, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// Decompress returns the uncompressed content of r, which is compressed with gzip,
// zstd, xz or bzip2, or not at all. Done gives its resources back.
func Decompress(r io.Reader) (content io.Reader, done func(), err error) {
	br := bufio.NewReaderSize(r, 128<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	for _, c := range compressions {
		if !bytes.HasPrefix(head, []byte(c.magic)) {
			continue
		}
		if c.open == nil {
			return nil, nil, fmt.Errorf("compressed with %s: %w", c.name, ErrCompression)
		}
		content, done, err := c.open(br)
		if err != nil {
			return nil, nil, decompressError(c.name, err)
		}
		return &decompressor{c.name, content}, done, nil
	}
	return br, nothing, nil
}

// decompressor says in errors what it was that could not be decompressed.
type decompressor struct {
	name string
	r    io.Reader
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = decompressError(d.name, err)
	}
	return n, err
}

func decompressError(name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return fmt.Errorf("decompress %s: it is truncated: %w", name, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("decompress %s: %w", name, err)
}
