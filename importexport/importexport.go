// Package importexport brings root filesystems into the store, from tar files,
// URLs and image servers, and writes containers out as tar.
//
// An import is one stream: what arrives is decompressed, hashed, written and
// indexed by [cas.Store.Ingest] while it arrives, and becomes a container only
// after its end has been seen and everything that was promised of it (length,
// SHA-256) has been found true. A download that is cut off is resumed or fails;
// it never becomes a container.
//
// Cache keys (see [container.Store.Lookup]):
//
//	import:DIGEST           the container of a layer of this content, by the
//	                        digest of its uncompressed tar
//	download:sha256:HEX     the same by the digest of the bytes downloaded
//	file:DEV:INO:…:PATH     a tar file as it was when it was read
//	image:URL               what was last imported from there
//	image:lxc:SERVER:ARCH:NAME
//	image:docker:NAME:PLATFORM
//	chain:CHAINID           the container of a stack of an image's lower layers; of
//	                        a single one, import:DIGEST is
//	image:config:DIGEST     the container of the image with that configuration
//	image:engine:ID         the same by the id that an engine has for it
//
// The first makes equal content one container, wherever it comes from. URLs and
// images of servers are base images by name: they are not asked for again until
// [Options.Refresh] says so.
//
// Images of Docker and OCI are read and written by package image, registries are spoken to by
// package registry. It neither mounts nor runs
// anything.
package importexport

import (
	"context"
	"errors"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/progress"
)

// Options are how to import. The zero value is fine.
type Options struct {
	// Refresh asks again where a name or a URL is already cached.
	Refresh bool
	// SHA256 is what the bytes that [ImportURL] downloads must hash to, as
	// hexadecimal digits; "": anything.
	SHA256 string
	// Progress is told about downloads, and about reading files that are large or
	// slow; nil: nobody is.
	Progress progress.Display
	// Warn is told what went wrong and was got around, as a mirror that does not answer; nil:
	// nobody is.
	Warn func(error)
	// UserAgent is what servers are told: plash/VERSION.
	UserAgent string
	// Server is the base URL of the image server; "": PLASH_LXC_SERVER of the
	// environment, or [DefaultServer].
	Server string
	// Arch is the architecture of the images wanted, as Go names it; "": this
	// machine's.
	Arch string
	// Platform is for which platform [ImportDocker] wants an image, OS/ARCH[/VARIANT];
	// "": this machine's, or whatever there is where there is but one.
	Platform string

	client *fetch.Client // tests have one that is less patient
}

func (o *Options) newClient() (c *fetch.Client, done func()) {
	if o.client != nil {
		return o.client, o.client.Close
	}
	c = fetch.New(o.UserAgent)
	return c, c.Close
}

func (o *Options) display() progress.Display {
	if o.Progress == nil {
		return progress.Quiet{}
	}
	return o.Progress
}

// hinted is an error that knows a way out: one line, for the user.
type hinted struct {
	error
	hint string
}

// Hint says what the user can do about the error.
func (e *hinted) Hint() string { return e.hint }

func (e *hinted) Unwrap() error { return e.error }

// keep makes a container of a finished import, or returns the one that has this
// content already, and lets all keys stand for it. It leaves staged to be closed
// by the caller.
func keep(ctx context.Context, st *container.Store, staged *cas.Staged, from string, keys ...string) (container.ID, error) {
	content := "import:" + staged.Digest().String()
	unlock, err := st.LockKey(ctx, content)
	if err != nil {
		return 0, err
	}
	defer unlock()
	id, ok, err := st.Lookup(content)
	if err != nil {
		return 0, err
	}
	if ok {
		// The content is at hand, should the container have lost it.
		if err := st.Restore(ctx, staged); err != nil {
			return 0, err
		}
		err = setKeys(st, id, keys)
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, container.ErrNotFound) {
			return 0, err
		}
		// It was removed in this moment.
	}
	r, err := st.Create(ctx, 0, staged, container.CreateOptions{
		Origin: container.Origin{Kind: "import", From: from},
		Keys:   append([]string{content}, keys...),
	})
	return r.ID, err
}

func setKeys(st *container.Store, id container.ID, keys []string) error {
	for _, key := range keys {
		if err := st.SetKey(key, id); err != nil {
			return err
		}
	}
	return nil
}

// cached returns the container a key stands for, or else what fetch returns,
// while no one else does the same. With refresh it always calls fetch.
func cached(ctx context.Context, st *container.Store, key string, refresh bool,
	fetch func() (container.ID, error),
) (container.ID, error) {
	if !refresh {
		if id, ok, err := lookup(st, key); ok || err != nil {
			return id, err
		}
	}
	unlock, err := st.LockKey(ctx, key)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if !refresh {
		if id, ok, err := lookup(st, key); ok || err != nil {
			return id, err
		}
	}
	return fetch()
}

// lookup returns the container a key stands for, if it has its content still.
func lookup(st *container.Store, key string) (container.ID, bool, error) {
	id, ok, err := st.Lookup(key)
	if !ok || err != nil {
		return 0, false, err
	}
	ok, err = st.Intact(id)
	if errors.Is(err, container.ErrNotFound) || errors.Is(err, container.ErrDamaged) {
		return 0, false, nil
	}
	return id, ok, err
}
