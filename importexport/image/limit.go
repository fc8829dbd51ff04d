package image

import (
	"fmt"
	"io"
	"sync/atomic"
)

// How large an image may become where nobody has said: a few bytes can be made to unpack
// to any number.
const (
	// freeSize is what may be unpacked however little was sent.
	freeSize = 2 << 30
	// maxRatio is how many bytes each byte that was sent may become beyond that. Trees of
	// files come to about 3, and gzip cannot do more than 1032.
	maxRatio = 64
	// maxSize is what may be unpacked in any case.
	maxSize = 1 << 40
)

// SizeVariable is the variable of the environment that is told about in errors about images
// that are too large.
const SizeVariable = "PLASH_MAX_IMAGE_SIZE"

// A LimitError says that an image is larger than it may be.
type LimitError struct {
	Unpacked, Sent, Limit int64 // in bytes; Limit is 0 where the ratio of the others is too high
}

func (e *LimitError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("the image is too large: its layers have more than %d bytes", e.Limit)
	}
	return fmt.Sprintf("the image is too large for what it is compressed to: %d bytes, out of %d", e.Unpacked, e.Sent)
}

// Hint says how to have it all the same.
func (e *LimitError) Hint() string {
	return "if it can be trusted, " + SizeVariable + "=SIZE allows it so many bytes (200G), or 0 any number"
}

// A budget watches over the size of an image while its layers are read, several at once.
type budget struct {
	limit          int64 // 0: by the ratio; below: none
	sent, unpacked atomic.Int64
}

// allow counts n bytes that were unpacked.
func (b *budget) allow(n int) error {
	total := b.unpacked.Add(int64(n))
	switch {
	case b.limit < 0:
		return nil
	case b.limit > 0 && total > b.limit:
		return &LimitError{Unpacked: total, Limit: b.limit}
	case b.limit > 0:
		return nil
	case total > maxSize:
		return &LimitError{Unpacked: total, Limit: maxSize}
	}
	if sent := b.sent.Load(); total-freeSize > sent*maxRatio {
		return &LimitError{Unpacked: total, Sent: sent}
	}
	return nil
}

// count returns a reader of r that counts what was sent.
func (b *budget) count(r io.Reader) io.Reader { return &countedReader{r, &b.sent} }

type countedReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
