package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/arm64": "linux/arm64", "": Platform{}.String(), "linux/arm64/v8": "linux/arm64", "LINUX/AArch64": "linux/arm64", "linux/x86_64": "linux/amd64",
		"linux/armhf": "linux/arm", "linux/arm/7": "linux/arm", "linux/arm/v6": "linux/arm/v6", "linux/amd64/v3": "linux/amd64/v3",
	} {
		p, err := ParsePlatform(in)
		if err != nil || p.String() != want {
			t.Errorf("%s: %v, %v, want %s", in, p, err, want)
		}
	}
	for _, in := range []string{"/", "arm64", "linux/", "/arm", "a/b/c/d"} {
		if p, err := ParsePlatform(in); err == nil {
			t.Errorf("%s: %v", in, p)
		}
	}
}

func TestChoose(t *testing.T) {
	index := func(platforms ...string) []v1.Descriptor {
		var all []v1.Descriptor
		for i, s := range platforms {
			d := v1.Descriptor{Size: int64(i)}
			if s != "" {
				p := strings.Split(s+"//", "/")
				d.Platform = &v1.Platform{OS: p[0], Architecture: p[1], Variant: p[2]}
			}
			all = append(all, d)
		}
		return all
	}
	for _, c := range []struct {
		want string
		in   []v1.Descriptor
		is   int64 // -1: none
	}{
		{"linux/amd64", index("linux/arm64", "linux/amd64", "unknown/unknown"), 1},
		{"linux/amd64", index("linux/amd64/v3", "linux/amd64"), 1},
		{"linux/amd64", index("linux/amd64/v3"), -1},
		{"", index("plan9/386", (Platform{}).String()), 1},
		{"linux/amd64/v4", index("linux/amd64/v2", "linux/amd64/v3"), 1},
		{"linux/arm64", index("linux/arm64/v8"), 0},
		{"linux/arm/v7", index("linux/arm/v5", "linux/arm/v6", "linux/arm64"), 1},
		{"linux/arm/v6", index("linux/arm/v7"), -1},
		{"linux/amd64", index(""), 0},
		{"linux/amd64", index("unknown/unknown", ""), 1},
		{"linux/amd64", index("", ""), -1},
		{"linux/amd64", index(), -1},
		{"linux/amd64", index("windows/amd64"), -1},
	} {
		p, err := ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Choose(c.in, p)
		if c.is < 0 && !errors.Is(err, ErrNotFound) || c.is >= 0 && (err != nil || d.Size != c.is) {
			t.Errorf("%s of %v: number %d, %v, want %d", c.want, c.in, d.Size, err, c.is)
		}
	}
}
