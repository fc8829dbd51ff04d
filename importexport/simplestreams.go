package importexport

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// The index of an image server, in the simplestreams format as LXC, Incus and
// LXD use it: streams/v1/index.json names product lists, these have products
// ("alpine:3.20:amd64:default"), products have versions ("20240601_13:00"), and
// versions have items: files with a type, a path from the server's base, a size
// and a SHA-256. What is not needed here is not looked at, and products that
// make no sense are passed over: the list is of many hands.

// productsType is the datatype of lists of image products.
const productsType = "image-downloads"

// product is an image in all its versions.
type product struct {
	dist, release, variant string // in lower case
	arch                   string // as the server names it
	title                  string // of the release, for people: "24.04 LTS"
	aliases                []string
	// rootfs is the file to import, of the newest version that has one; nil
	// where there is none.
	rootfs *item
}

// name is how the image is called: alpine:3.20, or alpine:3.20:cloud.
func (p *product) name() string {
	if p.variant != defaultVariant {
		return p.dist + ":" + p.release + ":" + p.variant
	}
	return p.dist + ":" + p.release
}

const defaultVariant = "default"

// item is a file of an image server.
type item struct {
	path   string // relative, without ".."
	sha256 string
	size   int64
}

// parseIndex returns the paths of the product lists that an index.json names,
// sorted.
func parseIndex(data []byte) ([]string, error) {
	var index struct {
		Index map[string]struct {
			Datatype string `json:"datatype"`
			Path     string `json:"path"`
		} `json:"index"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("not a simplestreams index: %w", err)
	}
	var paths []string
	for name, entry := range index.Index {
		if entry.Datatype != productsType {
			continue
		}
		p, err := relativePath(entry.Path)
		if err != nil {
			return nil, fmt.Errorf("simplestreams index, entry %.40q: %w", name, err)
		}
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("simplestreams index has no entry of type %s", productsType)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// parseProducts reads a list of products, sorted by distribution, release,
// variant and architecture.
func parseProducts(data []byte) ([]*product, error) {
	var list struct {
		Products map[string]json.RawMessage `json:"products"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("not a simplestreams product list: %w", err)
	}
	if list.Products == nil {
		return nil, errors.New("not a simplestreams product list: it has no products")
	}
	var products []*product
	for key, raw := range list.Products {
		if p := parseProduct(key, raw); p != nil {
			products = append(products, p)
		}
	}
	slices.SortFunc(products, compareProducts)
	return products, nil
}

func compareProducts(a, b *product) int {
	return cmp.Or(cmp.Compare(a.dist, b.dist), compareNatural(a.release, b.release),
		cmp.Compare(a.variant, b.variant), cmp.Compare(a.arch, b.arch))
}

// parseProduct reads one product, nil where it lacks what makes an image.
func parseProduct(key string, raw json.RawMessage) *product {
	var in struct {
		Aliases  string                     `json:"aliases"` // comma-separated
		Arch     string                     `json:"arch"`
		OS       string                     `json:"os"`
		Release  string                     `json:"release"`
		Title    string                     `json:"release_title"`
		Variant  string                     `json:"variant"`
		Versions map[string]json.RawMessage `json:"versions"`
	}
	if json.Unmarshal(raw, &in) != nil {
		return nil
	}
	p := &product{dist: in.OS, release: in.Release, arch: in.Arch, variant: in.Variant, title: in.Title}
	// The key has the distribution in the form that one types ("rockylinux",
	// where os is "Rocky Linux"). Other servers have other keys.
	if parts := strings.Split(key, ":"); len(parts) == 4 {
		p.dist = parts[0]
		p.release = cmp.Or(p.release, parts[1])
		p.arch = cmp.Or(p.arch, parts[2])
		p.variant = cmp.Or(p.variant, parts[3])
	}
	p.variant = cmp.Or(p.variant, defaultVariant)
	for _, s := range []*string{&p.dist, &p.release, &p.variant} {
		if *s = strings.ToLower(*s); !validNamePart(*s) {
			return nil
		}
	}
	if p.arch == "" {
		return nil
	}
	for alias := range strings.SplitSeq(in.Aliases, ",") {
		if parts, err := splitName(alias); err == nil {
			p.aliases = append(p.aliases, strings.Join(parts, ":"))
		}
	}
	p.rootfs = newestRootfs(in.Versions)
	return p
}

// newestRootfs returns the root filesystem of the newest version that has one.
func newestRootfs(versions map[string]json.RawMessage) *item {
	var newest string
	var found *item
	for name, raw := range versions {
		if found != nil && compareNatural(name, newest) <= 0 {
			continue
		}
		if it := rootfsOf(raw); it != nil {
			newest, found = name, it
		}
	}
	return found
}

// rootfsForms are the forms of a root filesystem that can be imported, in the
// order of how quickly that is done.
var rootfsForms = []string{".tar.zst", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"}

// rootfsOf returns the root filesystem among the items of a version, nil if
// there is none that has a path, a SHA-256 and a size.
func rootfsOf(raw json.RawMessage) *item {
	var version struct {
		Items map[string]struct {
			Ftype  string `json:"ftype"`
			Path   string `json:"path"`
			SHA256 string `json:"sha256"`
			Size   int64  `json:"size"`
		} `json:"items"`
	}
	if json.Unmarshal(raw, &version) != nil {
		return nil
	}
	best, bestPath, found := len(rootfsForms), "", (*item)(nil)
	for name, in := range version.Items {
		form := rootfsForm(cmp.Or(in.Ftype, name))
		if form < 0 {
			form = rootfsForm(path.Base(in.Path))
		}
		p, err := relativePath(in.Path)
		sum := strings.ToLower(in.SHA256)
		if form < 0 || err != nil || !validSHA256(sum) || in.Size <= 0 {
			continue
		}
		if form < best || form == best && p < bestPath {
			best, bestPath, found = form, p, &item{path: p, sha256: sum, size: in.Size}
		}
	}
	return found
}

// rootfsForm is the place in rootfsForms of a file or type name such as
// root.tar.xz, -1 if it has none.
func rootfsForm(name string) int {
	form, ok := strings.CutPrefix(name, "root")
	if !ok {
		return -1
	}
	return slices.Index(rootfsForms, strings.TrimPrefix(form, "fs"))
}

// relativePath returns a path of a server's index, cleaned. It must stay below
// the server's base: an index is no place to send its readers elsewhere from.
func relativePath(p string) (string, error) {
	clean := path.Clean(p)
	if p == "" || len(p) > 4096 || strings.ContainsAny(p, "\x00\\") || path.IsAbs(p) ||
		clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(p, "://") {
		return "", fmt.Errorf("unacceptable path %.100q", p)
	}
	return clean, nil
}

// compareNatural compares strings in which numbers count as such: 3.9 < 3.20.
func compareNatural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many digits s begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
