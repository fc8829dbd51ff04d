package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// maxIndex is the size of an index.json that is believed to be one.
const maxIndex = 4 << 20

// ErrNotLayout says that a directory is no OCI layout.
var ErrNotLayout = errors.New("not an OCI layout")

// WriteLayout adds an image to the OCI layout in dir, which is made if nothing is there,
// under the name tag, or as the one that has no name. An image that had
// the name is no longer in the index; its blobs stay. Blobs that the layout has
// are left as they are, others become files of their own. The index is replaced
// when everything is there, and what others add meanwhile stays in it. The meter, which may
// be nil, counts the bytes of the blobs that are written.
func WriteLayout(ctx context.Context, dir string, im *Image, tag string, m *progress.Meter) error {
	c, err := contentsOf(im)
	if err != nil {
		return err
	}
	if err := makeLayout(dir); err != nil {
		return err
	}
	// A new layout is as a new file: see output.WriteFile.
	_, err = os.Stat(filepath.Join(dir, indexFile))
	durable := err == nil
	missing := slices.DeleteFunc(c.parts, func(b part) bool { return b.in(dir) })
	m.Expect(sizeOf(missing))
	for i := range missing {
		if err := missing[i].writeTo(ctx, dir, durable, m); err != nil {
			return err
		}
	}
	if durable {
		if err := cas.SyncDir(filepath.Join(dir, "blobs/sha256")); err != nil {
			return placeError(dir, err)
		}
	}
	return addToIndex(ctx, dir, c.named(tag))
}

// makeLayout makes a layout in dir, or finds out that it is one.
func makeLayout(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("OCI layout: %w", err)
	}
	marker, err := readSmall(filepath.Join(dir, layoutFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(entries) > 0 && !begun(entries):
		return fmt.Errorf("%s: %w, and not empty: it has no file %s", dir, ErrNotLayout, layoutFile)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil:
		var layout v1.ImageLayout
		if err := json.Unmarshal(marker, &layout); err != nil || layout.Version != v1.ImageLayoutVersion {
			return fmt.Errorf("%s: %w of version %s: its file %s says %.40q", dir, ErrNotLayout, v1.ImageLayoutVersion, layoutFile, marker)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return placeError(dir, err)
	}
	if marker != nil {
		return nil
	}
	return output.WriteFile(filepath.Join(dir, layoutFile), func(w io.Writer) error {
		_, err := w.Write(layoutContent())
		return err
	})
}

// begun reports whether a directory is what makeLayout leaves that did not get to its end.
func begun(entries []fs.DirEntry) bool {
	return len(entries) == 1 && entries[0].Name() == "blobs" && entries[0].IsDir()
}

// in reports whether a layout has a blob.
func (b *part) in(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, blobName(b.digest)))
	return err == nil && info.Mode().IsRegular() && info.Size() == b.size
}

// writeTo puts a blob into a layout, and waits for the disk if it is to be durable.
func (b *part) writeTo(ctx context.Context, dir string, durable bool, m *progress.Meter) error {
	path := filepath.Join(dir, blobName(b.digest))
	err := replace(path, func(w io.Writer) error { return b.copyTo(ctx, w, m) })
	if err != nil || !durable {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return placeError(path, err)
	}
	return placeError(path, errors.Join(f.Sync(), f.Close()))
}

// addToIndex adds a manifest to the index of a layout, in the place of that which has
// its name.
func addToIndex(ctx context.Context, dir string, d v1.Descriptor) (err error) {
	// The directory is the lock: a file for it would be litter in the layout.
	lock, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("lock OCI layout: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := cas.Flock(ctx, lock, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock OCI layout: %w", err)
	}
	path := filepath.Join(dir, indexFile)
	// What we do not know of stays in it.
	fields, manifests, err := readIndex(path)
	if err != nil {
		return err
	}
	kept := []json.RawMessage{}
	for _, raw := range manifests {
		var old v1.Descriptor
		if err := json.Unmarshal(raw, &old); err != nil {
			return fmt.Errorf("%s: %w: %w", path, ErrNotLayout, err)
		}
		if old.Annotations[v1.AnnotationRefName] != d.Annotations[v1.AnnotationRefName] {
			kept = append(kept, raw)
		}
	}
	added, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode %s: %w", indexFile, err)
	}
	if fields["manifests"], err = json.Marshal(append(kept, added)); err != nil {
		return fmt.Errorf("encode %s: %w", indexFile, err)
	}
	content, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("encode %s: %w", indexFile, err)
	}
	return replace(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// replace writes a file of a layout. Links and devices that others have put there are not
// written through.
func replace(path string, write func(io.Writer) error) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w: not a regular file", path, ErrNotLayout)
	}
	return output.WriteFile(path, write)
}

// readIndex reads the index of a layout, an empty one if it has none.
func readIndex(path string) (fields map[string]json.RawMessage, manifests []json.RawMessage, err error) {
	b, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = encodeIndex(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex})
	}
	if err != nil {
		return nil, nil, err
	}
	if fields, err = object(b); err == nil && fields["manifests"] != nil {
		err = json.Unmarshal(fields["manifests"], &manifests)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", path, ErrNotLayout, err)
	}
	return fields, manifests, nil
}

// readSmall reads a file of a layout that others may have written.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err == nil && len(b) > maxIndex {
		err = fmt.Errorf("%s: more than %d bytes", path, maxIndex)
	}
	return b, err
}

// placeError is an error about the place that an image is written to.
func placeError(dir string, err error) error {
	if err == nil {
		return nil
	}
	return &output.WriteError{Name: dir, Err: err}
}
