package image

import (
	"cmp"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrPlatform is wrapped by the error about an image that there is not for the
// platform wanted.
var ErrPlatform = errors.New("no image for this platform")

// A Platform is what an image runs on, in the words of Go: linux, arm64, v8.
type Platform struct {
	OS, Architecture, Variant string
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// machineArch are other names of architectures, of uname(2), Debian and users.
var machineArch = map[string]Platform{
	"x86_64": {Architecture: "amd64"}, "x86-64": {Architecture: "amd64"}, "i386": {Architecture: "386"}, "i686": {Architecture: "386"},
	"aarch64": {Architecture: "arm64"}, "armhf": {Architecture: "arm", Variant: "v7"}, "armel": {Architecture: "arm", Variant: "v6"},
	"ppc64el": {Architecture: "ppc64le"},
}

// baseVariant is the variant that is meant where an architecture is named without one.
var baseVariant = map[string]string{"amd64": "v1", "arm64": "v8", "arm": "v7"}

// ParsePlatform reads OS/ARCH[/VARIANT], or ARCH alone for Linux; "" is this machine's.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return Platform{OS: goruntime.GOOS, Architecture: goruntime.GOARCH}.normal(), nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, fmt.Errorf("platform %q: OS/ARCH[/VARIANT] expected, as in linux/arm64", s)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

// normal gives the platform its usual names, and no variant that goes without saying.
func (p Platform) normal() Platform {
	if known, ok := machineArch[p.Architecture]; ok {
		p.Architecture = known.Architecture
		p.Variant = cmp.Or(p.Variant, known.Variant)
	}
	if p.Variant != "" && strings.Trim(p.Variant, "0123456789") == "" {
		p.Variant = "v" + p.Variant
	}
	if p.Variant == baseVariant[p.Architecture] {
		p.Variant = ""
	}
	return p
}

// rank says how well an image for have runs on p: 0 is best, -1 not at all.
func (p Platform) rank(have Platform) int {
	have = have.normal()
	if have.OS != p.OS || have.Architecture != p.Architecture {
		return -1
	}
	if have.Variant == p.Variant {
		return 0
	}
	mine, theirs := cmp.Or(p.Variant, baseVariant[p.Architecture]), cmp.Or(have.Variant, baseVariant[p.Architecture])
	var m, t int
	if _, err := fmt.Sscanf(mine, "v%d", &m); err != nil {
		return -1
	}
	// A processor runs what was made for its older kin.
	if _, err := fmt.Sscanf(theirs, "v%d", &t); err != nil || t > m {
		return -1
	}
	return m - t
}

// Choose returns which of several images for different platforms is the one for p. Images
// whose platform is not told, as in an index of one, are taken if there is nothing
// else. The error wraps [ErrPlatform] and lists what there is.
func (p Platform) Choose(manifests []v1.Descriptor) (v1.Descriptor, error) {
	best, bestRank := -1, 0
	var there []string
	var untold []v1.Descriptor
	for i, m := range manifests {
		if m.Platform == nil {
			untold = append(untold, m)
			continue
		}
		have := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}
		if have.OS == "unknown" {
			continue // buildkit's attestations
		}
		there = append(there, have.String())
		if r := p.rank(have); r >= 0 && (best < 0 || r < bestRank) {
			best, bestRank = i, r
		}
	}
	switch {
	case best >= 0:
		return manifests[best], nil
	case len(there) == 0 && len(untold) == 1:
		return untold[0], nil
	case len(there) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: %s: the index does not say what its %d images are for", ErrPlatform, p, len(untold))
	}
	const most = 16
	if len(there) > most {
		there = append(there[:most], "…")
	}
	return v1.Descriptor{}, fmt.Errorf("%w: %s: there are %s", ErrPlatform, p, strings.Join(there, ", "))
}
