package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Compression is how the layers of an image are compressed.
type Compression string

// The zero Compression is any that is known of a layer, else Gzip.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
	None Compression = "none"
)

// compressionOf is what a layer's media type says of its compression.
func compressionOf(mediaType string) Compression {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return Gzip
	case strings.HasSuffix(mediaType, "zstd"):
		return Zstd
	}
	return None
}

// layerType is the media type of a layer in a new manifest, of Docker's format or OCI's.
func (c Compression) layerType(docker bool) string {
	switch {
	case c == Zstd:
		return v1.MediaTypeImageLayerZstd // Docker's has no name for it
	case c == None && docker:
		return dockerLayerPlain
	case c == None:
		return v1.MediaTypeImageLayer
	case docker:
		return image.DockerLayer
	}
	return v1.MediaTypeImageLayerGzip
}

const dockerLayerPlain = "application/vnd.docker.image.rootfs.diff.tar"

// writer returns a writer that compresses. The same bytes always give the same.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case Gzip:
		return newGzipWriter(w), nil
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	}
	return nil, fmt.Errorf("compression %q: %w", c, ErrUnsupported)
}

// A spool is where layers lie that are to be uploaded and are not in the store in
// that form.
type spool struct {
	scratch *cas.Scratch
	busy    chan struct{} // has room for as many as may compress at once
}

func newSpool(st *cas.Store) (*spool, error) {
	scratch, err := st.Scratch("push")
	if err != nil {
		return nil, err
	}
	return &spool{scratch, make(chan struct{}, runtime.GOMAXPROCS(0))}, nil
}

func (s *spool) close() error { return s.scratch.Remove() }

// file returns a new file that has no name any more.
func (s *spool) file() (*os.File, error) {
	f, err := os.CreateTemp(s.scratch.Path(), "")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(s.scratch.Path(), filepath.Base(f.Name()))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fill writes what write gives into a file, and hashes it.
func (s *spool) fill(write func(w io.Writer) error) (f *os.File, d digest.Digest, size int64, err error) {
	if f, err = s.file(); err != nil {
		return nil, "", 0, err
	}
	sum := sha256.New()
	if err = write(io.MultiWriter(f, sum)); err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return nil, "", 0, errors.Join(err, f.Close())
	}
	return f, digest.NewDigest(digest.SHA256, sum), size, nil
}

// compress compresses what r gives.
func (s *spool) compress(ctx context.Context, r io.Reader, c Compression) (*os.File, digest.Digest, int64, error) {
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, "", 0, context.Cause(ctx)
	}
	defer func() { <-s.busy }()
	return s.fill(func(w io.Writer) error {
		z, err := c.writer(w)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(z, onlyReader{&ctxReader{ctx, r}}, make([]byte, 1<<20)); err != nil {
			return errors.Join(err, z.Close())
		}
		return z.Close()
	})
}

// onlyReader hides all but Read, so that the buffer given to io.CopyBuffer is used.
type onlyReader struct{ io.Reader }

// ctxReader ends reading when a context is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
