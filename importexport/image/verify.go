package image

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
)

// check holds a document against its digest. The error wraps [cas.ErrDigest].
func check(b []byte, want digest.Digest) error {
	if err := want.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", want, err)
	}
	if found := want.Algorithm().FromBytes(b); found != want {
		return fmt.Errorf("%w: expected %s, found %s", cas.ErrDigest, want, found)
	}
	return nil
}

// A verified reader ends with an error that wraps [cas.ErrDigest], instead of io.EOF, if
// what it read are not the bytes of a digest.
type verified struct {
	r    io.ReadCloser
	want digest.Digest
	size int64 // -1: any
	sum  hash.Hash
	n    int64
	err  error
}

// verify returns a reader of r that fails at its end if the bytes are not those of want,
// or, unless size is -1, not so many. More than size bytes are never read.
func verify(r io.ReadCloser, want digest.Digest, size int64) *verified {
	return &verified{r: r, want: want, size: size, sum: want.Algorithm().Hash()}
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	v.n += int64(n)
	switch {
	case v.size >= 0 && v.n > v.size:
		err = fmt.Errorf("%w: %s has more than the %d bytes it should have", cas.ErrDigest, v.want, v.size)
	case errors.Is(err, io.EOF) && v.size >= 0 && v.n < v.size:
		err = fmt.Errorf("%w: %s has %d bytes and should have %d", cas.ErrDigest, v.want, v.n, v.size)
	case errors.Is(err, io.EOF):
		if found := digest.NewDigest(v.want.Algorithm(), v.sum); found != v.want {
			err = fmt.Errorf("%w: expected %s, found %s", cas.ErrDigest, v.want, found)
		}
	}
	v.err = err
	return n, err
}

func (v *verified) Close() error { return v.r.Close() }
