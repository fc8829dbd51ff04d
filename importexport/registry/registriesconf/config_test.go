package registriesconf

import (
	"slices"
	"strings"
	"testing"
)

// resolve is where the images of a name are read, as HOST/PATH, with + where that may be insecure and ! where the
// registry is blocked.
func resolve(c *Config, name string, byDigest bool) string {
	r := c.Find(name)
	if r == nil {
		return ""
	}
	var all []string
	for _, s := range r.Sources(name, byDigest) {
		if s.Insecure {
			s.Name += "+"
		}
		all = append(all, s.Name)
	}
	if r.Blocked {
		all = append(all, "!")
	}
	return strings.Join(all, " ")
}

func config(t testing.TB, text string) *Config {
	t.Helper()
	registries, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{}
	for _, r := range registries {
		c.set(r)
	}
	return c
}

// allTables are tables of all kinds.
const allTables = `
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
[aliases]
"alpine" = "docker.io/library/alpine"

[[registry]]
prefix = "docker.io/library"
location = "hub.example/official"

[[registry]]
location = "hub.example"
insecure = true

[[registry]]
location = "hub.example/official/"
[[registry.mirror]]
location = "near.example/n"
insecure = true
[[registry.mirror]]
location = "far.example:5000/hub"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "fresh.example/f"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "any.example/a"
pull-from-mirror = "all"

[[registry]]
prefix = "hub.example/official"
location = "the.second.one"

[[registry]]
prefix = "*.wild.example"
blocked = true
[[registry.mirror]]
location = "cache.example/wild"

[[registry]]
prefix = "b.wild.example"
location = "exactly.example"

[[registry]]
prefix = "bb.wild.example"
location = "exactly.example"

[[registry]]
prefix = "*.moved.example"
location = "new.example/moved"

[[registry]]
prefix = "a.b/digests"
location = "c.d"
mirror-by-digest-only = true
[[registry.mirror]]
location = "e.f"
`

// found are names, and where their images are, see resolve: by a tag, and by a digest, where that is elsewhere.
var found = []struct{ name, tag, digest string }{
	{"docker.io/library/alpine", "hub.example/official/alpine", ""},
	{"docker.io/me/alpine", "", ""},
	{"docker.io/librarys/alpine", "", ""},
	{"hub.example/x", "hub.example/x+", ""},
	{"hub.example", "hub.example+", ""},
	{"hub.example:5000/x", "hub.example:5000/x+", ""},
	{"hub.examples/x", "", ""},
	{"hub.example/official/x/y", "near.example/n/x/y+ fresh.example/f/x/y any.example/a/x/y hub.example/official/x/y", "near.example/n/x/y+ far.example:5000/hub/x/y any.example/a/x/y hub.example/official/x/y"},
	{"hub.example/official", "near.example/n+ fresh.example/f any.example/a hub.example/official", "near.example/n+ far.example:5000/hub any.example/a hub.example/official"},
	{"hub.example/officially/x", "hub.example/officially/x+", ""},
	{"a.wild.example/x", "cache.example/wild/x a.wild.example/x !", ""},
	{"c.a.wild.example/x", "cache.example/wild/x c.a.wild.example/x !", ""},
	{"a.wild.example:99/x", "cache.example/wild:99/x a.wild.example:99/x !", ""}, // no name: an error, in the end
	{"wild.example/x", "", ""},
	{"a.wild.example.org/x", "", ""},
	{"other.example/a.wild.example/x", "", ""},
	{"b.wild.example/x", "cache.example/wild/x b.wild.example/x !", ""}, // of the same length
	{"bb.wild.example/x", "exactly.example/x", ""},
	{"a.moved.example/x/y", "new.example/moved/x/y", ""},
	{"a.b/digests/x", "c.d/x", "e.f/x c.d/x"},
}

func TestFind(t *testing.T) {
	c := config(t, allTables)
	for _, w := range found {
		if got := resolve(c, w.name, false); got != w.tag {
			t.Errorf("%s by tag: %q", w.name, got)
		}
		if w.digest == "" {
			w.digest = w.tag
		}
		if got := resolve(c, w.name, true); got != w.digest {
			t.Errorf("%s by digest: %q", w.name, got)
		}
	}
	c = config(t, "[[registry]]\nprefix = 'a.b/c//'\nlocation = 'd/'\n[[registry.mirror]]\nlocation = 'e.f/'\n")
	if got := resolve(c, "a.b/c/x", false); got != "e.f/x d/x" {
		t.Errorf("slashes at the end: %q", got)
	}
	if (*Config)(nil).Find("hub.example") != nil || new(Config).Find("hub.example") != nil {
		t.Error("found in nothing")
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"[[registry]\n":  "1: expected ']]'",
		"\n\nlocation\n": "3: ",
		"\xff":           "1: ",
		"[[registry]]\nlocation = 'a'\nlocation = 'b'\n":     "3: location: key location is already defined",
		"[[registry]]\nlocation = 'a'\n\ninsecure = 'yes'\n": "4: registry.insecure: a value of the wrong type, string",
		"[[registry]]\nlocation = 5\n":                       "2: registry.location: a value of the wrong type, integer",
		"[[registry]]\nlocation = 'a'\nmirror = 'b'\n":       "3: registry.mirror: a value of the wrong type, string",
		"registry = 3\n":                                                                                   "1: registry: a value of the wrong type, integer",
		"[[registry]]\n":                                                                                   "1: a registry that has no location, and no prefix",
		"[[registry]]\nprefix = 'a.b'\n":                                                                   "1: registry a.b: it has no location",
		"[[registry]]\nlocation = 'http://a.b'\n":                                                          `1: location "http://a.b": it is HOST[:PORT][/PATH], not a URL`,
		"[[registry]]\nprefix = 'https://a.b'\nlocation = 'a.b'\n":                                         `1: prefix "https://a.b": it is HOST`,
		"[[registry]]\nprefix = '*.a.b/c'\n":                                                               `1: prefix "*.a.b/c": it may have nothing but a host behind the *`,
		"[[registry]]\nprefix = '*.a.b:5'\nlocation = 'a.b'\n":                                             `1: prefix "*.a.b:5": it may`,
		"[[registry]]\nlocation = 'a.b'\npull-from-mirror = 'all'\n":                                       "1: registry a.b: pull-from-mirror is for its mirrors",
		"[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\n":                                            "1: registry a.b: mirror without a location",
		"[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation='http://x'":                         `1: registry a.b: mirror "http://x": it is HOST`,
		"[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'x'\npull-from-mirror = 'some'\n": `1: registry a.b: mirror x: pull-from-mirror is "some", not all, digest-only or tag-only`,
		"[[registry]]\nlocation = 'a.b'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'x'\npull-from-mirror = 'all'\n": "1: registry a.b: mirror x: pull-from-mirror and the registry's mirror-by-digest-only exclude each other",
		"[[registry]]\nlocation = 'a.b'\n[[registry]]\nprefix = 'c.d'\nlocation = 'a.b'\ninsecure = true\n":                             "3: registry a.b: two tables differ in whether it is insecure or blocked",
		"[[registry]]\nlocation = 'a.b'\nblocked = true\n[[registry]]\nprefix = 'c.d'\nlocation = 'a.b'\n":                              "4: registry a.b: two tables differ",
		"[[registry]]\nprefix = '*.a.b'\n[[registry]]\nprefix = '*.a.b'\nblocked = true\n":                                              "3: registry *.a.b: two tables differ",
		"registry = [{prefix = 'a.b'}]\n":                                           "registry a.b: it has no location",
		"[[registry]]\nlocation = 'a.b'\n\n [[registry]] # x\nprefix = 'c.d'\n":     "4: registry c.d: it has no location",
		"[[registry]]\nlocation = '''\n[[registry]]'''\npull-from-mirror = 'all'\n": "registry [[registry]]: pull-from-mirror is for",
		"[registries.search]\nregistries = ['docker.io']\n":                         "it is in version 1 of the format",
		"[registries.insecure]\nregistries = []\n[[registry]]\nlocation = 'a.b'\n":  "it is in version 1 of the format",
	} {
		c := &Config{}
		name := write(t, t.TempDir(), "registries.conf", text)
		err := c.read(name)
		if err == nil || !strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(err.Error(), name+":"), " "), want) {
			t.Errorf("%q: %v", text, err)
		}
		if len(c.registries) != 0 {
			t.Errorf("%q: there is something of it: %+v", text, c.registries)
		}
	}
}

// FuzzParse reads any text, and asks what came of it about any name.
func FuzzParse(f *testing.F) {
	f.Add("[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d/e'\ninsecure = true\n", "a.b/x")
	f.Add("[[registry]]\nprefix = '*.b'\nblocked = true\n", "a.b:5/x")
	f.Add("[[registry]]\nprefix = '*.b'\nlocation = 'c/'\n[[registry]]\nprefix = 'a.b'\nlocation = 'd'\n", "a.b")
	f.Add("[registries.search]\nregistries = ['x']\n", "x")
	f.Add("registry = [{location = \"a\", mirror = [{location = \"b\"}], mirror-by-digest-only = true}]", "a/b")
	f.Add("[[registry]]\nprefix = '*'\nlocation = 'c'\n", "*/x")
	f.Fuzz(func(t *testing.T, text, name string) {
		registries, err := parse([]byte(text))
		if err != nil {
			if err.Error() == "" || registries != nil {
				t.Errorf("%v and %v", registries, err)
			}
			return
		}
		c := &Config{}
		for _, r := range registries {
			if r.Prefix == "" || r.Location == "" && !strings.HasPrefix(r.Prefix, wildcard) {
				t.Errorf("%+v", r)
			}
			c.set(r)
		}
		if len(c.registries) != len(registries) || !slices.IsSortedFunc(c.registries, byPrefix) {
			t.Errorf("%+v", c.registries)
		}
		r := c.Find(name)
		if r == nil {
			return
		}
		tags, digests := r.Sources(name, false), r.Sources(name, true)
		if len(tags) > len(r.Mirrors)+1 || len(digests) > len(r.Mirrors)+1 || tags[len(tags)-1] != digests[len(digests)-1] {
			t.Errorf("%+v and %+v", tags, digests)
		}
		rest, _ := r.rest(name)
		for _, s := range append(tags, digests...) {
			if !strings.HasSuffix(s.Name, rest) {
				t.Errorf("%q became %q", name, s.Name)
			}
		}
	})
}
