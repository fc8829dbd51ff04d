package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerItem is an image in an archive's manifest.json, in the words of docker save: Docker Image
// Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
type dockerItem struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[digest.Digest]v1.Descriptor
}

// dockerFile is the member that makes an archive one of docker's.
const dockerFile = "manifest.json"

// dockerImage reads the image that r means out of an archive of docker save.
func dockerImage(fsys files, r Ref, p Platform) (*Image, error) {
	b, err := fsys.document(dockerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoList
	}
	if err != nil {
		return nil, err
	}
	var items []dockerItem
	if err := json.Unmarshal(b, &items); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, dockerFile, wrongJSON(err))
	}
	item, err := pickDocker(items, r)
	if err != nil {
		return nil, err
	}
	config, err := fsys.document(item.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if d := blobDigest(item.Config); d != "" {
		if err := check(config, d); err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	if err := wantPlatform(config, p); err != nil {
		return nil, err
	}
	if im := manifestOf(fsys, config); im != nil {
		return im, nil
	}
	return item.image(fsys, config)
}

// image makes the image of the members that the item names.
func (item *dockerItem) image(fsys files, config []byte) (*Image, error) {
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(item.Layers) {
		return nil, fmt.Errorf("%w: the archive has %d layers of it, its config %d", ErrMalformed, len(item.Layers), len(c.DiffIDs))
	}
	im := &Image{Config: config, Layers: make([]Layer, len(item.Layers)), Release: fsys.Close}
	for i, name := range item.Layers {
		l := Layer{DiffID: c.DiffIDs[i], Digest: blobDigest(name), Size: -1}
		there, err := l.from(fsys, name)
		if err != nil {
			return nil, err
		}
		if src, ok := item.LayerSources[l.DiffID]; ok && !there && src.Digest.Validate() == nil {
			l.MediaType, l.Digest, l.Size, l.URLs = src.MediaType, src.Digest, src.Size, src.URLs
		}
		im.Layers[i] = l
	}
	return im, nil
}

// manifestOf finds the manifest of the image with that config, in an archive that is an OCI layout
// too. It is of use where the layers are compressed, as those of docker with containerd's store;
// else it has only been made for the archive. Nil is returned if there is none.
func manifestOf(fsys files, config []byte) *Image {
	b, err := fsys.document(v1.ImageIndexFile)
	if err != nil {
		return nil
	}
	index, err := ParseManifest(b, v1.MediaTypeImageIndex)
	if err != nil {
		return nil
	}
	for _, d := range manifestsBelow(fsys, index.Manifests, map[digest.Digest]bool{}) {
		b, err := readBlob(fsys, d)
		if err != nil {
			continue
		}
		m, err := ParseManifest(b, d.MediaType)
		if err != nil || check(config, m.Config.Digest) != nil {
			continue
		}
		im, err := blobImage(fsys, b, d.MediaType, Platform{})
		if err == nil && slices.ContainsFunc(im.Layers, func(l Layer) bool { return l.Digest != l.DiffID }) {
			return im
		}
	}
	return nil
}

// manifestsBelow lists the manifests of images, each once, out of indexes as well. What cannot be read is
// left out.
func manifestsBelow(fsys files, all []v1.Descriptor, seen map[digest.Digest]bool) (found []v1.Descriptor) {
	for _, d := range all {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if !IsIndexType(d.MediaType) {
			found = append(found, d)
			continue
		}
		b, err := readBlob(fsys, d)
		if err != nil {
			continue
		}
		if m, err := ParseManifest(b, d.MediaType); err == nil && m.IsIndex() {
			found = append(found, manifestsBelow(fsys, m.Manifests, seen)...)
		}
	}
	return found
}

// pickDocker returns which image of an archive r means.
func pickDocker(items []dockerItem, r Ref) (*dockerItem, error) {
	var names []string
	for i := range items {
		names = append(names, items[i].RepoTags...)
		if len(items[i].RepoTags) == 0 {
			names = append(names, "@"+strconv.Itoa(i))
		}
	}
	want := wanted(r)
	switch {
	case len(items) == 0:
		return nil, fmt.Errorf("%w: the archive is empty", ErrNotFound)
	case r.Index >= len(items):
		return nil, fmt.Errorf("%w: number %d of %d", ErrNotFound, r.Index, len(items))
	case r.Index >= 0:
		return &items[r.Index], nil
	case want == "" && len(items) == 1:
		return &items[0], nil
	case want == "":
		return nil, choice(fmt.Errorf("there are %d images, and none of them is named", len(items)), names)
	}
	for i := range items {
		if slices.ContainsFunc(items[i].RepoTags, func(tag string) bool { return sameName(tag, want) }) {
			return &items[i], nil
		}
	}
	return nil, choice(fmt.Errorf("%w: none is called %s", ErrNotFound, want), names)
}
