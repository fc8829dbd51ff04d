package image

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// A Platform is what an image runs on. The zero value is this machine's.
type Platform struct {
	OS, Architecture string // as Go names them; "": this machine's
	Variant          string // of the architecture, as v6; "": the usual one
}

// otherNames are names of architectures that uname(2), Debian and users have.
var otherNames = map[string]Platform{
	"x86_64": {Architecture: "amd64"}, "x86-64": {Architecture: "amd64"}, "i386": {Architecture: "386"}, "i686": {Architecture: "386"},
	"aarch64": {Architecture: "arm64"}, "armhf": {Architecture: "arm", Variant: "v7"}, "armel": {Architecture: "arm", Variant: "v6"},
	"ppc64el": {Architecture: "ppc64le"},
}

// usualVariant is the variant that is meant where an architecture is named without one.
var usualVariant = map[string]string{"amd64": "v1", "arm64": "v8", "arm": "v7"}

// ParsePlatform reads OS/ARCHITECTURE[/VARIANT]; "" is the zero Platform.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return Platform{}, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, fmt.Errorf("platform %q: it is written OS/ARCHITECTURE[/VARIANT], as linux/arm64", s)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.filled(), nil
}

// filled is p with what it does not say, with its usual names, and without a variant that
// goes without saying.
func (p Platform) filled() Platform {
	p.OS = cmp.Or(p.OS, runtime.GOOS)
	p.Architecture = cmp.Or(p.Architecture, runtime.GOARCH)
	if known, ok := otherNames[p.Architecture]; ok {
		p.Architecture = known.Architecture
		p.Variant = cmp.Or(p.Variant, known.Variant)
	}
	if p.Variant != "" && strings.Trim(p.Variant, "0123456789") == "" {
		p.Variant = "v" + p.Variant
	}
	if p.Variant == usualVariant[p.Architecture] {
		p.Variant = ""
	}
	return p
}

func (p Platform) String() string {
	p = p.filled()
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// rank says how well an image for have runs on p: 0 is best, -1 not at all. Both are filled.
func (p Platform) rank(have Platform) int {
	if have.OS != p.OS || have.Architecture != p.Architecture {
		return -1
	}
	if have.Variant == p.Variant {
		return 0
	}
	usual := usualVariant[p.Architecture]
	var mine, theirs int
	if _, err := fmt.Sscanf(cmp.Or(p.Variant, usual), "v%d", &mine); err != nil {
		return -1
	}
	// A processor runs what was made for its older kin.
	if _, err := fmt.Sscanf(cmp.Or(have.Variant, usual), "v%d", &theirs); err != nil || theirs > mine {
		return -1
	}
	return mine - theirs
}

// Choose returns the manifest for the platform p out of those of an index (OCI image
// specification, image-index.md): the first that fits best. The error, which wraps [ErrNotFound],
// lists which platforms there are. An index of one image that says nothing of its platform
// has it for all.
func Choose(manifests []v1.Descriptor, p Platform) (v1.Descriptor, error) {
	want := p.filled()
	best, bestRank := -1, 0
	var there []string
	var untold []v1.Descriptor
	for i, m := range manifests {
		if m.Platform == nil {
			untold = append(untold, m)
			continue
		}
		if m.Platform.OS == "unknown" {
			continue // an attestation, which is no image
		}
		have := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}.filled()
		if name := have.String(); len(there) <= mostPlatforms && !slices.Contains(there, name) {
			there = append(there, name)
		}
		if r := want.rank(have); r >= 0 && (best < 0 || r < bestRank) {
			best, bestRank = i, r
		}
	}
	switch {
	case best >= 0:
		return manifests[best], nil
	case len(there) == 0 && len(untold) == 1:
		return untold[0], nil
	case len(there) == 0:
		return v1.Descriptor{}, fmt.Errorf("an index without an image for %s: %w", want, ErrNotFound)
	}
	return v1.Descriptor{}, &platformError{want, there}
}

// A platformError says that an image is not there for a platform.
type platformError struct {
	want  Platform
	there []string
}

// mostPlatforms is how many platforms an error lists.
const mostPlatforms = 16

func (e *platformError) Error() string {
	there := e.there
	if len(there) > mostPlatforms {
		there = append(slices.Clone(there[:mostPlatforms]), "…")
	}
	return fmt.Sprintf("the image is not there for %s, only for %s", e.want, strings.Join(there, ", "))
}

func (e *platformError) Unwrap() error { return ErrNotFound }

// Hint says how to have another one.
func (e *platformError) Hint() string {
	return "--platform " + e.there[0] + " takes an image for another machine"
}
