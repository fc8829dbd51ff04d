package registriesconf

import "strings"

// wildcard is what prefixes for the hosts of a domain begin with.
const wildcard = "*."

// Find returns the table for a repository, HOST[:PORT]/PATH, or for a registry, HOST[:PORT]: that with the longest
// prefix. It is nil where there is none.
func (c *Config) Find(name string) *Registry {
	if c == nil {
		return nil
	}
	var found *Registry
	for i := range c.registries {
		r := &c.registries[i]
		if _, ok := r.rest(name); ok && (found == nil || len(r.Prefix) > len(found.Prefix)) {
			found = r
		}
	}
	return found
}

// rest returns what of a name follows the prefix.
func (r *Registry) rest(name string) (string, bool) {
	if strings.HasPrefix(r.Prefix, wildcard) {
		end := strings.IndexAny(name, ":/")
		if end < 0 {
			end = len(name)
		}
		return name[end:], strings.HasSuffix(name[:end], r.Prefix[1:])
	}
	rest, ok := strings.CutPrefix(name, r.Prefix)
	return rest, ok && (rest == "" || rest[0] == '/' || rest[0] == ':')
}

// A Source is where an image can be read.
type Source struct {
	Name     string // of the repository; nobody has checked that it is one
	Insecure bool   // as in Registry
}

// Sources returns where images of a repository that the registry was found for are read, the mirrors first, its
// location last. Which mirrors there are depends on whether the image is named by its digest.
func (r *Registry) Sources(name string, byDigest bool) []Source {
	rest, _ := r.rest(name)
	var all []Source
	for _, m := range r.Mirrors {
		if byDigest && m.Digests || !byDigest && m.Tags {
			all = append(all, Source{m.Location + rest, m.Insecure})
		}
	}
	if r.Location != "" {
		name = r.Location + rest
	}
	return append(all, Source{name, r.Insecure})
}
