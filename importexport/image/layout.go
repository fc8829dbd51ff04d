package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// maxNesting is how deep indexes may lie in one another.
const maxNesting = 8

// containerdName is where containerd and docker write the full name, of which the
// specification's annotation is the tag alone.
const containerdName = "io.containerd.image.name"

// layoutImage reads the image that r means out of an OCI layout: OCI image
// specification, image-layout.md.
func layoutImage(fsys files, r Ref, p Platform) (*Image, error) {
	b, err := fsys.document(v1.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w, %s", errNoList, v1.ImageIndexFile)
	}
	if err != nil {
		return nil, err
	}
	index, err := ParseManifest(b, v1.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
	}
	d, err := pick(index.Manifests, r, p)
	if err != nil {
		return nil, err
	}
	manifest, mediaType, err := resolve(fsys, d, p)
	if err != nil {
		return nil, err
	}
	return blobImage(fsys, manifest, mediaType, p)
}

// pick returns which manifest of a layout r means.
func pick(all []v1.Descriptor, r Ref, p Platform) (v1.Descriptor, error) {
	if r.Index >= 0 {
		if r.Index >= len(all) {
			return v1.Descriptor{}, fmt.Errorf("%w: number %d of %d", ErrNotFound, r.Index, len(all))
		}
		return all[r.Index], nil
	}
	matches := all
	if want := wanted(r); want != "" {
		matches = nil
		for _, d := range all {
			if called(d, want) {
				matches = append(matches, d)
			}
		}
	}
	switch names := layoutNames(all); {
	case len(all) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: the layout is empty", ErrNotFound)
	case len(matches) == 0:
		return v1.Descriptor{}, choice(fmt.Errorf("%w: none is called %s", ErrNotFound, wanted(r)), names)
	case len(matches) == 1:
		return matches[0], nil
	case len(layoutNames(matches)) > 1:
		return v1.Descriptor{}, choice(fmt.Errorf("there are %d images, and none of them is named", len(all)), names)
	}
	// One image, for several platforms.
	return Choose(matches, p)
}

// wanted is the name of the image that r wants, "" for any.
func wanted(r Ref) string {
	if r.Repository != "" {
		return r.Name()
	}
	return r.Tag
}

// called reports whether a manifest of a layout has that name.
func called(d v1.Descriptor, want string) bool {
	for _, key := range []string{v1.AnnotationRefName, containerdName} {
		if name := d.Annotations[key]; name != "" && sameName(name, want) {
			return true
		}
	}
	return false
}

// sameName reports whether two names are the same, in short and in full.
func sameName(a, b string) bool {
	if a == b {
		return true
	}
	ra, errA := ParseRef(a)
	rb, errB := ParseRef(b)
	// Tags alone are names of images as well, which are not meant here.
	isName := func(s string) bool { return strings.ContainsAny(s, ":/") }
	return errA == nil && errB == nil && (isName(a) || isName(b)) && ra == rb
}

// mostNames is how many names of images an error lists.
const mostNames = 20

// layoutNames lists what the images of a layout are called, each name once, as far as an error needs it.
func layoutNames(all []v1.Descriptor) []string {
	var names []string
	for i, d := range all {
		name := d.Annotations[containerdName]
		if name == "" {
			name = d.Annotations[v1.AnnotationRefName]
		}
		if name == "" && d.Platform == nil {
			name = "@" + strconv.Itoa(i)
		}
		if len(names) <= mostNames && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// choice adds to err what could have been asked for.
func choice(err error, names []string) error {
	names = slices.DeleteFunc(names, func(s string) bool { return s == "" })
	if len(names) == 0 {
		return err
	}
	if len(names) > mostNames {
		names = append(names[:mostNames:mostNames], "…")
	}
	for i, n := range names {
		if strings.TrimFunc(n, strconv.IsPrint) != "" {
			names[i] = strconv.Quote(n)
		}
	}
	return &hinted{err, "there are: " + strings.Join(names, ", ")}
}

// resolve follows indexes down to the manifest of one image.
func resolve(fsys files, d v1.Descriptor, p Platform) (manifest []byte, mediaType string, err error) {
	for range maxNesting {
		b, err := readBlob(fsys, d)
		if err != nil {
			return nil, "", err
		}
		m, err := ParseManifest(b, d.MediaType)
		if err != nil {
			return nil, "", err
		}
		if !m.IsIndex() {
			return b, m.MediaType, nil
		}
		if d, err = Choose(m.Manifests, p); err != nil {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("%w: indexes within indexes, %d times over", ErrMalformed, maxNesting)
}

// readBlob returns a document by its digest, which it is held against.
func readBlob(fsys files, d v1.Descriptor) ([]byte, error) {
	b, err := fsys.document(blobName(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if err := check(b, d.Digest); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return b, nil
}

// blobImage is the image of a manifest whose config and layers are blobs.
func blobImage(fsys files, manifest []byte, mediaType string, p Platform) (*Image, error) {
	m, err := ParseManifest(manifest, mediaType)
	if err != nil {
		return nil, err
	}
	config, err := readBlob(fsys, m.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	im, err := New(manifest, mediaType, config)
	if err != nil {
		return nil, err
	}
	if err := wantPlatform(config, p); err != nil {
		return nil, err
	}
	for i := range im.Layers {
		if _, err := im.Layers[i].from(fsys, blobName(im.Layers[i].Digest)); err != nil {
			return nil, err
		}
	}
	im.Release = fsys.Close
	return im, nil
}

// wantPlatform is an error if a config is not for p, where that was asked for.
func wantPlatform(config []byte, p Platform) error {
	c, err := ParseConfig(config)
	if err == nil && !p.Fits(c.Platform) {
		err = &platformError{p, []string{c.Platform.String()}}
	}
	return err
}

// from makes the layer one that is read from a member of fsys, and reports whether that is
// there. If it is not that is no error yet: the store may have it.
func (l *Layer) from(fsys files, name string) (bool, error) {
	at, err := fsys.layer(name)
	if errors.Is(err, fs.ErrNotExist) {
		l.Open = func(context.Context) (io.ReadCloser, error) {
			return nil, fmt.Errorf("it is not in the image: %w", err)
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("layer %s: %w", l.DiffID, err)
	}
	if l.Size < 0 {
		l.Size = at.size
	}
	want, size := l.Digest, l.Size
	l.staged = at.staged
	l.Open = func(context.Context) (io.ReadCloser, error) {
		r, err := at.open()
		if err != nil || want == "" {
			return r, err
		}
		return verify(r, want, size), nil
	}
	return true, nil
}
