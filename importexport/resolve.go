package importexport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
)

// ErrNotSupported is wrapped by the error about an image source that this
// version cannot read.
var ErrNotSupported = errors.New("not supported by this version")

// source is what kind of thing an image name names.
type source int

const (
	sourceContainer   source = iota // a number or @KEY
	sourceURL                       // http:// or https://
	sourceFile                      // a path: it begins with / or ./ or ../
	sourceImage                     // an image of Docker or OCI, with its transport
	sourceUnsupported               // a transport of other tools
	sourceLXC                       // a name on the image server
)

func sourceOf(name string) source {
	switch {
	case strings.HasPrefix(name, "@"), strings.Trim(name, "0123456789") == "":
		return sourceContainer
	case hasPrefix(name, "http://", "https://"):
		return sourceURL
	case hasPrefix(name, "/", "./", "../"):
		return sourceFile
	case image.HasTransport(name):
		return sourceImage
	case strings.Contains(name, "://"):
		return sourceUnsupported
	default:
		return sourceLXC
	}
}

// hasPrefix reports whether s begins with one of prefixes, whatever the case of
// its letters.
func hasPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if len(s) >= len(p) && strings.EqualFold(s[:len(p)], p) {
			return true
		}
	}
	return false
}

// Resolve returns the container that an image name stands for, importing it if
// need be: a number, @KEY, an http or https URL, a path that begins with / or
// ./ or ../, an image of Docker or OCI with its transport (see [ImportDocker]), else an
// image of the image server.
func Resolve(ctx context.Context, st *container.Store, name string, o Options) (container.ID, error) {
	switch sourceOf(name) {
	case sourceContainer:
		if name == "" {
			return 0, errors.New("image: empty name")
		}
		return st.Resolve(name)
	case sourceURL:
		return ImportURL(ctx, st, name, o)
	case sourceFile:
		return ImportTarFile(ctx, st, name, o)
	case sourceImage:
		return ImportDocker(ctx, st, name, o)
	case sourceUnsupported:
		return 0, fmt.Errorf("image %s: %w", name, &hinted{
			ErrNotSupported, "a number, @KEY, an http(s) URL, the path of a tar, docker://, docker-daemon:, docker-archive:, oci:, oci-archive: or a name of the image server",
		})
	default:
		id, err := ImportLXC(ctx, st, name, o)
		if info, statErr := os.Stat(name); err != nil && statErr == nil && info.Mode().IsRegular() {
			err = &hinted{err, fmt.Sprintf("the file of that name is ./%s", name)}
		}
		return id, err
	}
}
