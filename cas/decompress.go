package cas

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressions tells a compressed stream by its first bytes.
var compressions = [...]struct {
	magic string
	open  func(io.Reader) (io.Reader, func(), error)
}{
	{"\x1f\x8b", func(r io.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}},
	{"\x28\xb5\x2f\xfd", openZstd},
	{"\xfd7zXZ\x00", func(r io.Reader) (io.Reader, func(), error) {
		z, err := xz.NewReader(r)
		return z, func() {}, err
	}},
	{"BZh", func(r io.Reader) (io.Reader, func(), error) {
		return bzip2.NewReader(r), func() {}, nil
	}},
}

func openZstd(r io.Reader) (io.Reader, func(), error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(1<<30))
	if err != nil {
		return nil, nil, err
	}
	return z, z.Close, nil
}

// decompress returns the uncompressed content of r, which is compressed with gzip,
// zstd, xz or bzip2, or not at all. Close gives its resources back.
func decompress(r io.Reader) (content io.Reader, compressed bool, closer func(), err error) {
	br := bufio.NewReaderSize(r, 128<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, false, nil, err
	}
	for _, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			content, closer, err := c.open(br)
			if err != nil {
				return nil, true, nil, fmt.Errorf("decompress: %w", err)
			}
			return content, true, closer, nil
		}
	}
	return br, false, func() {}, nil
}
