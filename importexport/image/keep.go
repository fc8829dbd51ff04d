package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
)

// Files that a container made of an image has attached, see [container.Store.Attached].
const (
	ConfigFile   = "image-config.json"   // the very bytes of its config
	ManifestFile = "image-manifest.json" // those of its manifest, where there was one
	TypeFile     = "image-manifest-type" // the media type of that
)

// KeepOptions are how to make containers of an image.
type KeepOptions struct {
	// From says in the records where the image is from.
	From string
	// Keys are cache keys that shall stand for the container.
	Keys []string
	// MaxSize is as in [OpenOptions].
	MaxSize int64
	// Display is told about layers that take their time; nil: nobody is.
	Display progress.Display
	// Fetch downloads the content of a URL, for layers that are elsewhere; nil: those
	// cannot be had.
	Fetch func(ctx context.Context, url string) (io.ReadCloser, error)
}

// maxAttempts is how often making containers begins again because others remove what they
// stand on.
const maxAttempts = 3

// Keep makes containers of an image's layers, each on the one below it, and returns the id of the
// top one, which has the image's config. Layers that the store has, by their diff id, are not
// opened. Containers of lower layers belong to all images on the same base, and have no config;
// the same image gives the same container again.
//
// Nothing is published before all layers have been read and found to be what was
// promised: if that fails, the store is as before. The errors wrap [cas.ErrDigest]
// or [ErrMalformed], or are a [*LimitError].
func Keep(ctx context.Context, st *container.Store, im *Image, o KeepOptions) (_ container.ID, err error) {
	config, err := ParseConfig(im.Config)
	if err != nil {
		return 0, err
	}
	if len(config.DiffIDs) != len(im.Layers) {
		return 0, fmt.Errorf("%w: it has %d layers, its config %d", ErrMalformed, len(im.Layers), len(config.DiffIDs))
	}
	for i, l := range im.Layers {
		if l.DiffID != config.DiffIDs[i] {
			return 0, fmt.Errorf("%w: layer %d is %s, in its config %s", ErrMalformed, i+1, l.DiffID, config.DiffIDs[i])
		}
	}
	k := &keeper{st: st, im: withLayer(im), o: o, staged: map[digest.Digest]*cas.Staged{}, budget: &budget{limit: o.MaxSize}}
	defer func() { err = errors.Join(err, k.close()) }()
	for attempt := 1; ; attempt++ {
		id, err := k.keep(ctx)
		// What was there a moment ago was removed under our hands.
		if (errors.Is(err, container.ErrNotFound) || errors.Is(err, cas.ErrNotExist)) && attempt < maxAttempts {
			continue
		}
		return id, err
	}
}

// keeper is an image on its way into the store.
type keeper struct {
	st     *container.Store
	im     *Image
	o      KeepOptions
	staged map[digest.Digest]*cas.Staged // layers that have been read, by diff id
	own    []*cas.Staged                 // those that no one else closes
	budget *budget
}

func (k *keeper) close() error {
	var err error
	for _, s := range k.own {
		err = errors.Join(err, s.Close())
	}
	return err
}

// keep makes the containers, of what is there and of what has to be read.
func (k *keeper) keep(ctx context.Context) (container.ID, error) {
	if id, ok, err := Known(k.st, k.im.Config); err != nil {
		return 0, err
	} else if ok {
		return id, k.again(id)
	}
	missing, err := k.missing()
	if err != nil {
		return 0, err
	}
	if err := k.read(ctx, missing); err != nil {
		return 0, err
	}
	if err := k.publish(ctx, missing); err != nil {
		return 0, err
	}
	var parent container.ID
	var chain digest.Digest
	for i, l := range k.im.Layers {
		chain = cas.NextChainID(chain, l.DiffID)
		c := container.CreateOptions{Origin: container.Origin{Kind: "import", From: k.o.From}, Keys: []string{chainKey(chain, i+1)}}
		if top := i == len(k.im.Layers)-1; top {
			c.Config, c.Attached = k.im.Config, k.im.attached()
			c.Keys = append([]string{imageKey(k.im.Config)}, k.o.Keys...)
		}
		if parent, err = k.container(ctx, parent, l, c); err != nil {
			return 0, fmt.Errorf("layer %d of %d: %w", i+1, len(k.im.Layers), err)
		}
	}
	return parent, nil
}

// container returns the container of a layer on parent: the one that the first of its keys stands
// for, or a new one.
func (k *keeper) container(ctx context.Context, parent container.ID, l Layer, c container.CreateOptions) (_ container.ID, err error) {
	unlock, err := k.st.LockKey(ctx, c.Keys[0])
	if err != nil {
		return 0, err
	}
	defer unlock()
	id, ok, err := k.st.Lookup(c.Keys[0])
	if err != nil {
		return 0, err
	}
	staged := k.staged[l.DiffID]
	if ok && staged != nil {
		// The content is at hand, should the container have lost it.
		err = k.st.Restore(ctx, staged)
	}
	if ok && err == nil && c.Config != nil {
		err = k.again(id)
	}
	if ok {
		return id, err
	}
	if staged == nil {
		if staged, err = k.st.CAS().StageBlob(l.DiffID); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, staged.Close()) }()
	}
	r, err := k.st.Create(ctx, parent, staged, c)
	return r.ID, err
}

// attached are the files that the container of the image has besides its record.
func (im *Image) attached() map[string][]byte {
	if im.changed {
		return nil
	}
	files := map[string][]byte{ConfigFile: im.Config}
	if im.Manifest != nil {
		files[ManifestFile], files[TypeFile] = im.Manifest, []byte(im.MediaType)
	}
	return files
}

// again notes of the image's container, which was there, what is new: keys, and the
// manifest, if it came without one before or with another. What is lost of that in a power cut
// costs the digest of the manifest.
func (k *keeper) again(id container.ID) error {
	for _, key := range k.o.Keys {
		if err := k.st.SetKey(key, id); err != nil {
			return err
		}
	}
	if k.im.Manifest == nil || k.im.changed {
		return nil
	}
	old, err := k.st.Attached(id, ManifestFile)
	if err == nil && bytes.Equal(old, k.im.Manifest) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := k.st.WriteBeside(id, TypeFile, []byte(k.im.MediaType)); err != nil {
		return err
	}
	return k.st.WriteBeside(id, ManifestFile, k.im.Manifest)
}
