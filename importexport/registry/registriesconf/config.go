// Package registriesconf reads registries.conf, in which Podman, Buildah, skopeo and CRI-O keep where the images of a
// name come from: containers-registries.conf(5), version 2 of the format. It knows names, and speaks with no one.
//
// What it says is what these programs do, which is more than the manual page has:
//   - A table is chosen by the name of a repository, without tag or digest.
//   - Of tables with prefixes of one length the one that sorts first wins, so *.example.com before a.example.com.
//   - A prefix that is a host stands for its ports too.
//   - That a registry is blocked keeps one from its location, not from its mirrors.
//
// It leaves out how short names are completed (unqualified-search-registries, [aliases]) and where passwords are
// kept (credential-helpers). Keys that it does not know are passed over.
package registriesconf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// A Config is what the files say. The zero value, and nil, say nothing.
type Config struct {
	registries []Registry // by prefix, each once
}

// A Registry is what holds for the images whose names begin with a prefix.
type Registry struct {
	Prefix   string // HOST[:PORT], with the path to a namespace or a repository, or *.HOST
	Location string // is read from in place of Prefix; "": names are as they are
	Insecure bool   // plain HTTP, and TLS with a certificate that no one vouches for, will do
	Blocked  bool   // the location is not spoken with
	Mirrors  []Mirror
	File     string // that says so
}

// A Mirror is asked before a registry's location.
type Mirror struct {
	Location string
	Insecure bool
	Tags     bool // for images named by a tag
	Digests  bool // for images named by their digest
}

// file is what stands in one file.
type file struct {
	Registries []table `toml:"registry"`
	Version1   any     `toml:"registries"`
}

type table struct {
	endpoint
	Prefix             string     `toml:"prefix"`
	Blocked            bool       `toml:"blocked"`
	MirrorByDigestOnly bool       `toml:"mirror-by-digest-only"`
	Mirrors            []endpoint `toml:"mirror"`
}

type endpoint struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"`
}

// read adds a file: its tables take the place of those that have the same prefix.
func (c *Config) read(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	registries, err := parse(text)
	var at position
	switch {
	case errors.As(err, &at):
		return fmt.Errorf("%s:%d: %w", name, at.line, err)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, r := range registries {
		r.File = name
		c.set(r)
	}
	return nil
}

func (c *Config) set(r Registry) {
	i, found := slices.BinarySearchFunc(c.registries, r, byPrefix)
	if found {
		c.registries[i] = r
	} else {
		c.registries = slices.Insert(c.registries, i, r)
	}
}

func byPrefix(a, b Registry) int { return strings.Compare(a.Prefix, b.Prefix) }

// position is an error at a line, counted from 1.
type position struct {
	line int
	error
}

// parse reads the text of a file. Of tables with the same prefix, the first one counts.
func parse(text []byte) ([]Registry, error) {
	var f file
	if err := toml.Unmarshal(text, &f); err != nil {
		return nil, tomlError(err)
	}
	if f.Version1 != nil {
		return nil, version1Error{}
	}
	var all []Registry
	lines := headers(text)
	for i, t := range f.Registries {
		at := func(err error) error {
			if len(lines) != len(f.Registries) {
				return err
			}
			return position{lines[i], err}
		}
		r, err := t.registry()
		if err != nil {
			return nil, at(err)
		}
		same := func(other Registry) bool { return other.Prefix == r.Prefix }
		for _, other := range all {
			if other.physical() == r.physical() && (other.Insecure != r.Insecure || other.Blocked != r.Blocked) {
				return nil, at(fmt.Errorf("registry %s: two tables differ in whether it is insecure or blocked", r.physical()))
			}
		}
		if !slices.ContainsFunc(all, same) {
			all = append(all, r)
		}
	}
	return all, nil
}

// headers returns the lines at which tables begin, for errors. It does not find those that are written otherwise than
// everybody does.
func headers(text []byte) []int {
	var lines []int
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if strings.HasPrefix(strings.TrimSpace(line), "[[registry]]") {
			lines = append(lines, n)
		}
	}
	return lines
}

// tomlError says what is wrong with a text, and where.
func tomlError(err error) error {
	var d *toml.DecodeError
	if !errors.As(err, &d) {
		return err
	}
	line, _ := d.Position()
	said := strings.TrimPrefix(d.Error(), "toml: ")
	if kind, ok := strings.CutPrefix(said, "cannot decode TOML "); ok { // goes on with names of this package
		kind, _, _ = strings.Cut(kind, " into ")
		said = "a value of the wrong type, " + kind
	}
	if key := d.Key(); len(key) > 0 {
		said = strings.Join(key, ".") + ": " + said
	}
	return position{line, errors.New(said)}
}

// version1Error is about a format that is not read any more, by Podman neither.
type version1Error struct{}

func (version1Error) Error() string {
	return "it is in version 1 of the format ([registries.search], [registries.insecure], [registries.block])"
}

// Hint says what there is in its place.
func (version1Error) Hint() string {
	return `write [[registry]] tables, with location = "HOST" and insecure = true or blocked = true: containers-registries.conf(5)`
}

// physical is where images are read from.
func (r *Registry) physical() string {
	if r.Location == "" {
		return r.Prefix
	}
	return r.Location
}

// registry checks a table.
func (t table) registry() (Registry, error) {
	r := Registry{Insecure: t.Insecure, Blocked: t.Blocked}
	var err error
	if r.Location, err = address(t.Location); err != nil {
		return Registry{}, fmt.Errorf("location %w", err)
	}
	if r.Prefix, err = address(t.Prefix); err != nil {
		return Registry{}, fmt.Errorf("prefix %w", err)
	}
	if t.Prefix == "" {
		r.Prefix = r.Location
	}
	wild := strings.HasPrefix(r.Prefix, wildcard)
	switch {
	case r.Prefix == "":
		return Registry{}, errors.New("a registry that has no location, and no prefix")
	case wild && strings.ContainsAny(r.Prefix, "/@:"):
		return Registry{}, fmt.Errorf("prefix %q: it may have nothing but a host behind the *", r.Prefix)
	case !wild && r.Location == "":
		return Registry{}, fmt.Errorf("registry %s: it has no location", r.Prefix)
	case t.PullFromMirror != "":
		return Registry{}, fmt.Errorf("registry %s: pull-from-mirror is for its mirrors", r.Prefix)
	}
	for _, m := range t.Mirrors {
		mirror, err := m.mirror(t.MirrorByDigestOnly)
		if err != nil {
			return Registry{}, fmt.Errorf("registry %s: mirror %w", r.Prefix, err)
		}
		r.Mirrors = append(r.Mirrors, mirror)
	}
	return r, nil
}

// mirror checks a mirror. With onlyDigests the registry's mirrors are for digests alone.
func (e endpoint) mirror(onlyDigests bool) (Mirror, error) {
	location, err := address(e.Location)
	if err != nil {
		return Mirror{}, err
	}
	m := Mirror{Location: location, Insecure: e.Insecure, Tags: !onlyDigests, Digests: true}
	switch {
	case location == "":
		return Mirror{}, errors.New("without a location")
	case e.PullFromMirror == "":
	case onlyDigests:
		return Mirror{}, fmt.Errorf("%s: pull-from-mirror and the registry's mirror-by-digest-only exclude each other", location)
	case e.PullFromMirror == "digest-only":
		m.Tags = false
	case e.PullFromMirror == "tag-only":
		m.Digests = false
	case e.PullFromMirror != "all":
		return Mirror{}, fmt.Errorf("%s: pull-from-mirror is %q, not all, digest-only or tag-only", location, e.PullFromMirror)
	}
	return m, nil
}

// address checks what names a place that has images.
func address(s string) (string, error) {
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		return "", fmt.Errorf("%q: it is HOST[:PORT][/PATH], not a URL", s)
	}
	return strings.TrimRight(s, "/"), nil
}
