package registry

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/ihucos/plash/importexport/image"
)

// A repository holds the images of one name.
type repository struct {
	host string // of the registry, with a port where one is given
	path string
}

// String is the repository as host/path.
func (r repository) String() string { return r.host + "/" + r.path }

// apiHost is the host that has the registry's API.
func (r repository) apiHost() string {
	if r.host == image.DefaultHost {
		return name.DefaultRegistry
	}
	return r.host
}

func repositoryOf(ref image.Ref) repository { return repository{ref.Host, ref.Repository} }

// manifestName is what the registry's API calls the manifest of an image.
func manifestName(ref image.Ref) string {
	if ref.Digest != "" {
		return ref.Digest.String()
	}
	return ref.Tag
}

// parseRepository reads [HOST[:PORT]/]NAME.
func parseRepository(s string) (repository, error) {
	ref, err := image.ParseRef(string(image.Registry) + "://" + s)
	if err != nil {
		return repository{}, err
	}
	if strings.Contains(s, "@") || strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, '/') {
		return repository{}, fmt.Errorf("%q: not the name of a repository: it has a tag or a digest", s)
	}
	return repositoryOf(ref), nil
}
