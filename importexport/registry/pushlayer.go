package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// layer sees to it that the registry has a layer, by the cheapest way: it has it already in
// a form that is known, or gets that form from another repository, or the layer is
// compressed and uploaded.
func (p *pusher) layer(ctx context.Context, l image.Layer) (v1.Descriptor, error) {
	part := p.sum.Part()
	form, done, err := p.knownForm(ctx, l, part)
	if err == nil && !done {
		form, err = p.ownForm(ctx, l, part)
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("layer %s: %w", l.DiffID, err)
	}
	part.Set(max(l.Size, 0))
	form.From = p.session.repo.String()
	if form.Digest != l.DiffID && !p.o.aside {
		// That it is not remembered costs time at the next push, no more.
		_ = image.RememberCompressed(p.o.Store, l.DiffID, form)
	}
	return v1.Descriptor{MediaType: form.MediaType, Digest: form.Digest, Size: form.Size}, nil
}

// knownForm has the registry get one of the forms that are known. It returns false if it got none.
func (p *pusher) knownForm(ctx context.Context, l image.Layer, show progress.Display) (image.CompressedForm, bool, error) {
	forms := p.forms[l.DiffID]
	asked := map[digest.Digest]bool{}
	for _, f := range forms {
		if asked[f.Digest] {
			continue
		}
		asked[f.Digest] = true
		if there, err := p.session.has(ctx, f.Digest); there || err != nil {
			return f, there, err
		}
	}
	for _, f := range forms {
		if f.From == "" {
			continue
		}
		err := p.bring(ctx, f, scaled{show, f.Size, l.Size, 0})
		if err == nil {
			return f, true, nil
		}
		var failed *uploadError
		if ctx.Err() != nil || errors.As(err, &failed) {
			return f, false, err
		}
		// What is not there any more can be made.
	}
	return image.CompressedForm{}, false, nil
}

// An uploadError is one of the registry that is pushed to, not of the one that a layer
// comes from.
type uploadError struct{ error }

func (e *uploadError) Unwrap() error { return e.error }

// bring has the registry get a form from the repository that it was seen in: by itself, if that
// is one of its own, or by way of this machine.
func (p *pusher) bring(ctx context.Context, f image.CompressedForm, show progress.Display) error {
	from, err := parseRepository(f.From)
	if err != nil {
		return err
	}
	var begun *url.URL
	if from.host == p.session.repo.host && from.path != p.session.repo.path {
		var mounted bool
		if mounted, begun, err = p.session.mount(ctx, f.Digest, from.path); err != nil {
			return &uploadError{err}
		}
		if mounted {
			return nil
		}
	}
	if from == p.session.repo.repository {
		return image.ErrNotFound // it was asked
	}
	sources, err := p.c.settings.sources(from, true)
	if err != nil {
		return err
	}
	d := &download{c: p.c, sources: sources}
	b, err := d.open(ctx, 0, v1.Descriptor{Digest: f.Digest, Size: f.Size}, progress.Quiet{})
	if err != nil {
		return err
	}
	defer b.Close()
	file, _, size, err := p.spool.fill(func(w io.Writer) error {
		_, err := io.CopyBuffer(w, b, make([]byte, 1<<20))
		return err
	})
	if err != nil {
		return err
	}
	defer file.Close()
	if err := p.c.upload(ctx, p.session, source{f.Digest, size, file}, begun, show); err != nil {
		return &uploadError{err}
	}
	return nil
}

// ownForm compresses the layer, and uploads it unless the registry has that form.
func (p *pusher) ownForm(ctx context.Context, l image.Layer, show progress.Display) (image.CompressedForm, error) {
	how := p.o.Compression
	if how == "" {
		how = Gzip
	}
	r, err := l.Open(ctx)
	if err != nil {
		return image.CompressedForm{}, err
	}
	defer r.Close()
	show.Start(l.Size)
	var src source
	if at, ok := r.(io.ReaderAt); ok && how == None && l.Digest == l.DiffID {
		src = source{l.DiffID, l.Size, at}
	} else {
		file, d, size, err := p.packed(ctx, l, r, how, show)
		if err != nil {
			return image.CompressedForm{}, err
		}
		defer file.Close()
		src = source{d, size, file}
	}
	form := image.CompressedForm{MediaType: how.layerType(false), Digest: src.digest, Size: src.size}
	there, err := p.session.has(ctx, src.digest)
	if there || err != nil {
		return form, err
	}
	return form, p.c.upload(ctx, p.session, src, nil, scaled{show, src.size, l.Size, l.Size / 2})
}

// packed returns a file with the layer as it is to be uploaded.
func (p *pusher) packed(ctx context.Context, l image.Layer, r io.Reader, how Compression, show progress.Display) (*os.File, digest.Digest, int64, error) {
	plain, done, err := cas.Decompress(r)
	if err != nil {
		return nil, "", 0, err
	}
	defer done()
	sum := l.DiffID.Verifier()
	counted := &counter{r: io.TeeReader(plain, sum), show: scaled{show, l.Size, l.Size / 2, 0}}
	var (
		file *os.File
		d    digest.Digest
		size int64
	)
	if how == None {
		file, d, size, err = p.spool.fill(func(w io.Writer) error {
			_, err := io.Copy(w, &ctxReader{ctx, counted})
			return err
		})
	} else {
		file, d, size, err = p.spool.compress(ctx, counted, how)
	}
	if err == nil && !sum.Verified() {
		err = errors.Join(fmt.Errorf("%w: expected %s", cas.ErrDigest, l.DiffID), file.Close())
	}
	return file, d, size, err
}

// counter tells how far reading is.
type counter struct {
	r    io.Reader
	n    int64
	show progress.Display
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.show.Set(c.n)
	return n, err
}

// scaled shows work of so many bytes as a part of a layer, from offset to its end.
type scaled struct {
	progress.Display
	from, to, offset int64
}

func (s scaled) Start(int64) {}

func (s scaled) Set(done int64) {
	if s.from <= 0 {
		return
	}
	part := min(float64(done)/float64(s.from), 1)
	s.Display.Set(s.offset + int64(part*float64(max(s.to-s.offset, 0))))
}

func (s scaled) Retry(why error, wait time.Duration) { s.Display.Retry(why, wait) }
