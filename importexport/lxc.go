package importexport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/fetch"
)

// DefaultServer is the image server that names are looked up on where no other
// is named.
const DefaultServer = "https://images.linuxcontainers.org"

const (
	// maxIndex bounds a server's lists. That of the default server has some 3 MB.
	maxIndex = 64 << 20
	// maxLists is how many product lists of a server are read.
	maxLists = 16
)

// archNames are the names that image servers have for Go's architectures,
// where they differ.
var archNames = map[string]string{"arm": "armhf", "386": "i386", "ppc64le": "ppc64el"}

// ImportLXC makes a container of the newest image of that name on an image
// server in the simplestreams format: DISTRIBUTION[:RELEASE[:VARIANT]], or a
// release's name alone; see findImage. Length and SHA-256 are those of the
// server's index, which is trusted as the connection to it is.
//
// A name is asked for once: then it stands for that container until it is
// removed or o.Refresh is set.
func ImportLXC(ctx context.Context, st *container.Store, name string, o Options) (container.ID, error) {
	parts, err := splitName(name)
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	server, err := o.server()
	if err != nil {
		return 0, fmt.Errorf("import %s: %w", name, err)
	}
	arch := o.arch()
	key := "image:lxc:" + urlKey(server) + ":" + arch + ":" + strings.Join(parts, ":")
	return cached(ctx, st, key, o.Refresh, func() (container.ID, error) {
		id, err := importLXC(ctx, st, server, arch, parts, key, o)
		if err != nil {
			return 0, fmt.Errorf("import %s: %w", name, err)
		}
		return id, nil
	})
}

func (o *Options) arch() string {
	arch := o.Arch
	if arch == "" {
		arch = goruntime.GOARCH
	}
	if name, ok := archNames[arch]; ok {
		return name
	}
	return arch
}

// server is the base URL of the image server.
func (o *Options) server() (*url.URL, error) {
	s := o.Server
	if s == "" {
		s = os.Getenv("PLASH_LXC_SERVER")
	}
	if s == "" {
		s = DefaultServer
	}
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := parseURL(s)
	if err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	u.RawQuery = ""
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

func importLXC(ctx context.Context, st *container.Store, server *url.URL, arch string, parts []string, key string, o Options) (container.ID, error) {
	c, done := o.newClient()
	defer done()
	products, err := fetchProducts(ctx, c, server)
	if err != nil {
		return 0, err
	}
	p, err := findImage(products, arch, parts)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", server.Redacted(), err)
	}
	// The same image may have come under another name.
	sameBytes := downloadKey(p.rootfs.sha256)
	if id, ok, err := st.Lookup(sameBytes); err != nil {
		return 0, err
	} else if ok {
		return id, st.SetKey(key, id)
	}
	o.client = c
	d := download{url: below(server, p.rootfs.path), size: p.rootfs.size, sha256: p.rootfs.sha256}
	return d.keep(ctx, st, o, strings.Join(parts, ":"), key)
}

// below is the URL of a relative path under a base, whose query it drops. The
// path may have colons and percent signs, which are no part of URL syntax here.
func below(base *url.URL, rel string) *url.URL {
	u := *base
	u.Path, u.RawPath = path.Join("/", base.Path, rel), ""
	return &u
}

// fetchProducts reads what a server offers. A server without an index.json has
// one list, at the usual place.
func fetchProducts(ctx context.Context, c *fetch.Client, server *url.URL) ([]*product, error) {
	lists := []string{"streams/v1/images.json"}
	index := below(server, "streams/v1/index.json")
	data, err := c.Get(ctx, index, maxIndex)
	var status *fetch.StatusError
	switch {
	case err == nil:
		if lists, err = parseIndex(data); err != nil {
			return nil, fmt.Errorf("%s: %w", index.Redacted(), err)
		}
	case errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusForbidden):
		// Storage services say forbidden of what is not there.
	default:
		return nil, err
	}
	if len(lists) > maxLists {
		return nil, fmt.Errorf("%s: %d product lists, at most %d are read", index.Redacted(), len(lists), maxLists)
	}
	var all []*product
	for _, list := range lists {
		u := below(server, list)
		data, err := c.Get(ctx, u, maxIndex)
		if err != nil {
			return nil, err
		}
		products, err := parseProducts(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
		}
		all = append(all, products...)
	}
	slices.SortFunc(all, compareProducts)
	return all, nil
}
