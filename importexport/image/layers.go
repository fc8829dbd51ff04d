package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// emptyTar is a tar of nothing: the end marker. Docker's empty layers are this one.
var emptyTar = make([]byte, 1024)

// withLayer gives an image without layers one that is empty, as a container is a layer. It is no
// longer the same image then, so nothing keeps its digests.
func withLayer(im *Image) *Image {
	if len(im.Layers) > 0 {
		return im
	}
	return &Image{Config: im.Config, changed: true, Layers: []Layer{{
		DiffID: digest.SHA256.FromBytes(emptyTar),
		Size:   int64(len(emptyTar)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(emptyTar)), nil
		},
	}}}
}

// missing returns the numbers of the layers that have to be read: which neither the store has, by
// their diff id, nor have been read. Of equal layers one is enough.
func (k *keeper) missing() ([]int, error) {
	sizes, err := k.sizes()
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]bool{}
	var missing []int
	for i, l := range k.im.Layers {
		if seen[l.DiffID] || k.staged[l.DiffID] != nil {
			continue
		}
		seen[l.DiffID] = true
		info, err := os.Stat(k.st.CAS().BlobPath(l.DiffID))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		want, known := sizes[l.DiffID]
		if err != nil || known && info.Size() != want {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// sizes are those that blobs of the image must have, as far as containers tell: that of the
// image itself, or the highest one of its base that is there.
func (k *keeper) sizes() (map[digest.Digest]int64, error) {
	id, ok, err := k.st.Lookup(imageKey(k.im.Config))
	var chain digest.Digest
	chains := make([]digest.Digest, len(k.im.Layers))
	for i, l := range k.im.Layers {
		chain = cas.NextChainID(chain, l.DiffID)
		chains[i] = chain
	}
	for i := len(chains) - 1; i >= 0 && !ok && err == nil; i-- {
		id, ok, err = k.st.Lookup(chainKey(chains[i], i+1))
	}
	if err != nil || !ok {
		return nil, err
	}
	records, err := k.st.Chain(id)
	sizes := map[digest.Digest]int64{}
	for _, r := range records {
		sizes[r.Layer] = r.Size
	}
	return sizes, err
}

// bytes is how many bytes are read for layers of those numbers, -1 where that is not known.
func (k *keeper) bytes(missing []int) (total int64) {
	for _, i := range missing {
		switch l := k.im.Layers[i]; {
		case l.staged != nil:
		case l.Size < 0:
			return -1
		default:
			total += l.Size
		}
	}
	return total
}

// read reads layers, several at once, and stages them.
func (k *keeper) read(ctx context.Context, missing []int) error {
	m := progress.NewMeter(k.o.Display, k.bytes(missing))
	defer m.Close()
	group, ctx := errgroup.WithContext(ctx)
	// Three, as docker does, where one waits for a server while others are unpacked.
	group.SetLimit(max(3, runtime.GOMAXPROCS(0)))
	var mu sync.Mutex
	for _, i := range missing {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			l := k.im.Layers[i]
			staged, err := k.stage(ctx, l, m)
			if err != nil {
				return fmt.Errorf("layer %d of %d, %s: %w", i+1, len(k.im.Layers), l.DiffID, err)
			}
			mu.Lock()
			defer mu.Unlock()
			k.staged[l.DiffID] = staged
			if l.staged == nil {
				k.own = append(k.own, staged)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	m.Complete()
	for _, i := range missing {
		k.remember(k.im.Layers[i])
	}
	return nil
}

// publish puts layers that have been read into the store, all at once: the disk syncs many files
// together in little more time than one. Until containers refer to them they may be collected, and
// are put there again then.
func (k *keeper) publish(ctx context.Context, layers []int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, i := range layers {
		staged := k.staged[k.im.Layers[i].DiffID]
		group.Go(func() error { return k.st.Restore(ctx, staged) })
	}
	return group.Wait()
}

// remember notes in which form a layer came that has been read and verified.
func (k *keeper) remember(l Layer) {
	if l.Digest == "" || l.Digest == l.DiffID || l.MediaType == "" {
		return
	}
	// It is a hint: the image is as good without it.
	_ = RememberCompressed(k.st.CAS(), l.DiffID, CompressedForm{
		MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, From: l.From,
	})
}

// stage reads one layer.
func (k *keeper) stage(ctx context.Context, l Layer, m *progress.Meter) (*cas.Staged, error) {
	if l.staged != nil {
		if found := l.staged.Digest(); found != l.DiffID {
			return nil, fmt.Errorf("%w: expected %s, found %s", cas.ErrDigest, l.DiffID, found)
		}
		return l.staged, nil
	}
	opened, err := k.open(ctx, l)
	if err != nil {
		return nil, err
	}
	var r io.Reader = opened
	if v, ok := opened.(*verified); ok && l.Digest == l.DiffID {
		r = v.r // the store hashes the same bytes
	}
	r = progress.Count(k.budget.count(r), m)
	staged, err := k.st.CAS().Ingest(ctx, r, cas.IngestOptions{Expect: l.DiffID, Allow: k.budget.allow})
	err = whole(ctx, r, err)
	if err = errors.Join(err, opened.Close()); err != nil {
		return nil, errors.Join(err, closeStaged(staged))
	}
	return staged, nil
}

// whole reads a layer, of which err is what its ingestion came to, to its end: the bytes behind the
// end of the archive count too, and where it is damaged they tell that it is not what was
// promised.
func whole(ctx context.Context, r io.Reader, err error) error {
	var errno syscall.Errno
	var limit *LimitError
	if errors.As(err, &errno) || errors.As(err, &limit) || ctx.Err() != nil {
		return err
	}
	_, end := io.CopyN(io.Discard, r, maxTrailer)
	switch {
	case end == nil && err == nil:
		return fmt.Errorf("more than %d bytes behind its end", maxTrailer)
	case err == nil && !errors.Is(end, io.EOF), errors.Is(end, cas.ErrDigest):
		return end
	}
	return err
}

// open opens a layer where it lies, or else downloads it from where it is said to be: OCI image
// specification, descriptor.md, "urls".
func (k *keeper) open(ctx context.Context, l Layer) (io.ReadCloser, error) {
	r, err := l.Open(ctx)
	if err == nil || ctx.Err() != nil || k.o.Fetch == nil {
		return r, err
	}
	for _, u := range l.URLs {
		if !strings.HasPrefix(u, "https://") && !strings.HasPrefix(u, "http://") {
			continue
		}
		elsewhere, fetchErr := k.fetch(ctx, u)
		if fetchErr != nil {
			err = errors.Join(err, fetchErr)
			continue
		}
		if l.Digest == "" {
			return elsewhere, nil
		}
		return verify(elsewhere, l.Digest, l.Size), nil
	}
	return nil, err
}

// fetch begins a download, and waits for its first byte: that it cannot be had is found out
// then.
func (k *keeper) fetch(ctx context.Context, u string) (io.ReadCloser, error) {
	r, err := k.o.Fetch(ctx, u)
	if err != nil {
		return nil, err
	}
	begun := &begunReader{bufio.NewReader(r), r}
	if _, err := begun.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, r.Close())
	}
	return begun, nil
}

// begunReader is a reader of which something may have been read already.
type begunReader struct {
	*bufio.Reader
	io.Closer
}
