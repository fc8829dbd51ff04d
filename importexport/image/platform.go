package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Platform is what an image runs on. The zero value is this machine's.
type Platform struct {
	OS, Architecture string // as Go names them; "": this machine's
	Variant          string // of the architecture, as v7; "": any, the newest of them
}

// ParsePlatform reads OS/ARCHITECTURE[/VARIANT].
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return Platform{}, fmt.Errorf("platform %q: it is written OS/ARCHITECTURE[/VARIANT], as linux/arm64", s)
	}
	p := Platform{OS: strings.ToLower(parts[0]), Architecture: architecture(strings.ToLower(parts[1]))}
	if len(parts) == 3 {
		p.Variant = strings.ToLower(parts[2])
	}
	return p, nil
}

// architecture is Go's name of an architecture that others call otherwise.
func architecture(name string) string {
	switch name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686":
		return "386"
	}
	return name
}

// filled is p with what it does not say.
func (p Platform) filled() Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	return p
}

func (p Platform) String() string {
	p = p.filled()
	if p.Variant != "" {
		return p.OS + "/" + p.Architecture + "/" + p.Variant
	}
	return p.OS + "/" + p.Architecture
}

// Choose returns the manifest for the platform p out of those of an index (OCI image
// specification, image-index.md): the first that fits best. The error lists which platforms
// there are. An index of one image that says nothing of its platform has it for all.
func Choose(manifests []v1.Descriptor, p Platform) (v1.Descriptor, error) {
	want := p.filled()
	var (
		best  *v1.Descriptor
		rank  string
		there []string
	)
	for i, m := range manifests {
		if m.Platform == nil {
			continue
		}
		got := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}
		if got.OS == "unknown" {
			continue // an attestation, which is no image
		}
		if name := got.String(); !slices.Contains(there, name) {
			there = append(there, name)
		}
		if got.OS != want.OS || got.Architecture != want.Architecture || want.Variant != "" && variant(got) != variant(want) {
			continue
		}
		if best == nil || variant(got) > rank {
			best, rank = &manifests[i], variant(got)
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case len(manifests) == 1 && manifests[0].Platform == nil:
		return manifests[0], nil
	case len(there) == 0:
		return v1.Descriptor{}, fmt.Errorf("an index without an image for %s: %w", want, ErrNotFound)
	}
	return v1.Descriptor{}, &platformError{want, there}
}

// variant is the variant of a platform; arm64 without one is v8.
func variant(p Platform) string {
	if p.Architecture == "arm64" && p.Variant == "" {
		return "v8"
	}
	return p.Variant
}

// A platformError says that an image is not there for a platform.
type platformError struct {
	want  Platform
	there []string
}

func (e *platformError) Error() string {
	return fmt.Sprintf("the image is not there for %s, only for %s", e.want, strings.Join(e.there, ", "))
}

func (e *platformError) Unwrap() error { return ErrNotFound }

// Hint says how to have another one.
func (e *platformError) Hint() string {
	return "--platform " + e.there[0] + " takes an image for another machine"
}
