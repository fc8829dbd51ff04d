package registry

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
)

// dockerHub is the registry of names that name none.
const dockerHub = "docker.io"

// A repository holds the images of one name.
type repository struct {
	host string // of the registry, with a port where one is given
	path string
}

// String is the repository as host/path.
func (r repository) String() string { return r.host + "/" + r.path }

// A Reference names an image in a registry.
type Reference struct {
	repo repository
	// Tag and Digest say which; the digest decides where both are there.
	Tag    string
	Digest digest.Digest
}

// Host is the registry's name, with its port where one is given.
func (r Reference) Host() string { return r.repo.host }

// String is the reference in full, as HOST/NAME:TAG@DIGEST.
func (r Reference) String() string {
	s := r.repo.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// name is what the registry's API calls the image's manifest.
func (r Reference) name() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// Parse reads [HOST[:PORT]/]NAME[:TAG][@sha256:…] as Docker does: what stands before the first
// slash is a host if it has a dot or a port or is localhost; without one, the
// image is on docker.io, and without a further slash among its library/. The tag is latest
// if there is neither a tag nor a digest.
func Parse(s string) (Reference, error) {
	bad := func(err error) (Reference, error) {
		return Reference{}, fmt.Errorf("image %q: not a name in a registry: %w", s, err)
	}
	base, sum, pinned := strings.Cut(s, "@")
	var r Reference
	if pinned {
		r.Digest = digest.Digest(sum)
		if err := r.Digest.Validate(); err != nil {
			return bad(err)
		}
	}
	tagged, err := name.NewTag(base)
	if err != nil {
		return bad(err)
	}
	r.repo = repositoryOf(tagged.Repository)
	if colon := strings.LastIndexByte(base, ':'); !pinned || colon > strings.LastIndexByte(base, '/') {
		r.Tag = tagged.TagStr()
	}
	return r, nil
}

// parseRepository reads a name that has neither a tag nor a digest.
func parseRepository(s string) (repository, error) {
	r, err := name.NewRepository(s)
	if err != nil {
		return repository{}, fmt.Errorf("%q: not the name of a repository: %w", s, err)
	}
	return repositoryOf(r), nil
}

func repositoryOf(r name.Repository) repository {
	host := r.RegistryStr()
	if host == name.DefaultRegistry || host == "registry-1."+dockerHub {
		host = dockerHub
	}
	return repository{host, r.RepositoryStr()}
}
