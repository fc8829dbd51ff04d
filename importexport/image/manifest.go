package image

import (
	_ "crypto/sha512" // a digest that the specification allows
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of docker's own, of the Docker Image Manifest V 2, Schema 2.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"

	schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

const (
	// MaxDocument is how large a manifest, an index or a config may be, in bytes.
	MaxDocument = 16 << 20
	// MaxLayers is how many layers an image may have.
	MaxLayers = 4096
)

var (
	// ErrMalformed is wrapped by the error about documents that make no image.
	ErrMalformed = errors.New("malformed image")
	// ErrSchema1 says that an image is of a form which was given up in 2017.
	ErrSchema1 error = &hinted{
		errors.New("manifest of schema 1, which is not supported: it does not say what its layers are"),
		"push the image again with a docker later than 1.10, or convert it: skopeo copy --format v2s2",
	}
	errNotImage = errors.New("not a container image")
)

// hinted is an error that knows a way out.
type hinted struct {
	error
	hint string
}

// Hint says what the user can do about the error, in one line.
func (e *hinted) Hint() string { return e.hint }

func (e *hinted) Unwrap() error { return e.error }

// A Manifest is what a manifest or an index says.
type Manifest struct {
	MediaType string
	// Manifests are those of an index; nil for the manifest of one image.
	Manifests []v1.Descriptor
	// Config and Layers are those of an image; the bottom layer is the first.
	Config v1.Descriptor
	Layers []v1.Descriptor
}

// IsIndex reports whether it is a list of manifests.
func (m *Manifest) IsIndex() bool { return IsIndexType(m.MediaType) }

// IsIndexType reports whether a media type is that of an index or a manifest list.
func IsIndexType(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == DockerManifestList
}

// ParseManifest reads the manifest of an image, or an index. MediaType is what whoever gave it
// calls it, and may be "". The error wraps [ErrMalformed] or [ErrSchema1].
func ParseManifest(b []byte, mediaType string) (*Manifest, error) {
	var doc struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Config        *v1.Descriptor   `json:"config"`
		Layers        *[]v1.Descriptor `json:"layers"`
		Manifests     *[]v1.Descriptor `json:"manifests"`
		FSLayers      json.RawMessage  `json:"fsLayers"`
	}
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("%w: a manifest of %d bytes, at most %d are read", ErrMalformed, len(b), MaxDocument)
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrMalformed, wrongJSON(err))
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	m := &Manifest{MediaType: strings.TrimSpace(mediaType)}
	switch {
	case doc.SchemaVersion == 1, mediaType == schema1, mediaType == schema1Signed, doc.FSLayers != nil:
		return nil, ErrSchema1
	case doc.MediaType != "" && m.MediaType != "" && isManifestType(m.MediaType) && doc.MediaType != m.MediaType:
		return nil, fmt.Errorf("%w: a manifest of type %s calls itself %s", ErrMalformed, m.MediaType, doc.MediaType)
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		// OCI image specification, manifest.md: what could be read as either is to be refused.
		return nil, fmt.Errorf("%w: it is both a manifest and an index", ErrMalformed)
	case doc.MediaType != "":
		m.MediaType = doc.MediaType
	case !isManifestType(m.MediaType) && doc.Manifests != nil:
		m.MediaType = v1.MediaTypeImageIndex
	case !isManifestType(m.MediaType):
		m.MediaType = v1.MediaTypeImageManifest
	}
	switch {
	case !isManifestType(m.MediaType):
		return nil, fmt.Errorf("%w: its manifest is of type %s", errNotImage, m.MediaType)
	case m.IsIndex() && doc.Manifests == nil:
		return nil, fmt.Errorf("%w: an index without manifests", ErrMalformed)
	case m.IsIndex():
		m.Manifests = *doc.Manifests
		return m, checkDescriptors(m.Manifests)
	case doc.Config == nil || doc.Manifests != nil:
		return nil, fmt.Errorf("%w: a manifest without config", ErrMalformed)
	}
	m.Config = *doc.Config
	if doc.Layers != nil {
		m.Layers = *doc.Layers
	}
	return m, m.check()
}

func isManifestType(s string) bool {
	return s == v1.MediaTypeImageManifest || s == DockerManifest || IsIndexType(s)
}

func (m *Manifest) check() error {
	switch m.Config.MediaType {
	case v1.MediaTypeImageConfig, DockerConfig, "application/octet-stream": // the last by old registries
	default:
		return fmt.Errorf("%w: its config is of type %q", errNotImage, m.Config.MediaType)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("%w: %d layers, at most %d are read", ErrMalformed, len(m.Layers), MaxLayers)
	}
	for _, l := range m.Layers {
		if strings.HasSuffix(l.MediaType, "+encrypted") {
			return fmt.Errorf("layer %s is encrypted, which is not supported", l.Digest)
		}
	}
	return checkDescriptors(append([]v1.Descriptor{m.Config}, m.Layers...))
}

func checkDescriptors(all []v1.Descriptor) error {
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("%w: digest %q: %w", ErrMalformed, d.Digest, err)
		}
		if d.Size < 0 {
			return fmt.Errorf("%w: %s has %d bytes", ErrMalformed, d.Digest, d.Size)
		}
	}
	return nil
}

// A Config is what plash must know of an image's configuration, see OCI image
// specification, config.md.
type Config struct {
	Platform Platform
	// DiffIDs are the digests of the layers' tars, the bottom one first.
	DiffIDs []digest.Digest
}

// ParseConfig reads the configuration of an image. The error wraps [ErrMalformed].
func ParseConfig(b []byte) (Config, error) {
	var doc struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
		RootFS       *struct {
			Type    string          `json:"type"`
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if len(b) > MaxDocument {
		return Config{}, fmt.Errorf("%w: a config of %d bytes, at most %d are read", ErrMalformed, len(b), MaxDocument)
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return Config{}, fmt.Errorf("%w: config: %w", ErrMalformed, wrongJSON(err))
	}
	switch {
	case doc.RootFS == nil:
		return Config{}, fmt.Errorf("%w: the config does not say what its layers are", ErrMalformed)
	case doc.RootFS.Type != "layers":
		return Config{}, fmt.Errorf("%w: the config has a rootfs of type %q, not layers", ErrMalformed, doc.RootFS.Type)
	case len(doc.RootFS.DiffIDs) > MaxLayers:
		return Config{}, fmt.Errorf("%w: %d layers, at most %d are read", ErrMalformed, len(doc.RootFS.DiffIDs), MaxLayers)
	}
	for _, d := range doc.RootFS.DiffIDs {
		if !isSHA256(d) {
			return Config{}, fmt.Errorf("%w: the config has the diff id %q, which is no SHA-256 digest", ErrMalformed, d)
		}
	}
	return Config{
		Platform: Platform{doc.OS, doc.Architecture, doc.Variant}.filled(),
		DiffIDs:  doc.RootFS.DiffIDs,
	}, nil
}

// New makes an image of a manifest, its media type and the config that it names. Whoever calls
// it gives the layers their Open. The error wraps [ErrMalformed] if the two do not
// fit together, or the config's bytes are not those that the manifest wants.
func New(manifest []byte, mediaType string, config []byte) (*Image, error) {
	m, err := ParseManifest(manifest, mediaType)
	if err != nil {
		return nil, err
	}
	if m.IsIndex() {
		return nil, fmt.Errorf("%w: an index where a manifest is expected", ErrMalformed)
	}
	if err := check(config, m.Config.Digest); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%w: its manifest has %d layers, its config %d", ErrMalformed, len(m.Layers), len(c.DiffIDs))
	}
	im := &Image{Manifest: manifest, MediaType: m.MediaType, Config: config, Layers: make([]Layer, len(m.Layers))}
	for i, l := range m.Layers {
		im.Layers[i] = Layer{DiffID: c.DiffIDs[i], MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, URLs: l.URLs}
	}
	return im, nil
}

// wrongJSON says what is wrong with JSON. Of values of another type than expected, package json says more of this
// program than of them.
func wrongJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return err
	case wrong.Field == "":
		return fmt.Errorf("a value of the wrong type, %s", wrong.Value)
	}
	return fmt.Errorf("%s: a value of the wrong type, %s", wrong.Field, wrong.Value)
}
