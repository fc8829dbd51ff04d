package importexport

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ihucos/plash/spelling"
)

// ErrUnknownImage is wrapped by the error about a name that an image server
// does not have.
var ErrUnknownImage = errors.New("no such image")

// splitName takes an image name apart: alpine:3.20, or alpine/3.20 as LXD has
// it. Upper and lower case are the same.
func splitName(name string) ([]string, error) {
	parts := strings.FieldsFunc(strings.ToLower(strings.TrimSpace(name)), func(r rune) bool { return r == ':' || r == '/' })
	if len(parts) == 0 || len(parts) > 4 || strings.ContainsAny(name[len(name)-1:], ":/") {
		return nil, fmt.Errorf("%q is not an image name: expected DISTRIBUTION[:RELEASE[:VARIANT]]", name)
	}
	for _, p := range parts {
		if !validNamePart(p) {
			return nil, fmt.Errorf("%q is not an image name: %q in it", name, p)
		}
	}
	return parts, nil
}

func validNamePart(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_+") == ""
}

// findImage returns the product that a name stands for, among those for arch:
//
//   - an alias of a product, in the form of the server (debian/12);
//   - DISTRIBUTION:RELEASE[:VARIANT], without a variant the default one, or the
//     first in the alphabet where there is none; the product's key, with the
//     architecture, too;
//   - DISTRIBUTION: its newest stable release, see [stability];
//   - RELEASE, if only one distribution has such a one.
//
// Its errors do not say the name, which the caller knows as it was written.
func findImage(products []*product, arch string, parts []string) (*product, error) {
	var here []*product
	for _, p := range products {
		if p.arch == arch && p.rootfs != nil {
			here = append(here, p)
		}
	}
	name := strings.Join(parts, ":")
	if p := byAlias(here, name); p != nil {
		return p, nil
	}
	found := matching(here, parts)
	switch {
	case len(found) == 0:
		return nil, unknownImage(products, here, arch, name)
	case found[0].dist != found[len(found)-1].dist:
		return nil, fmt.Errorf("the name is ambiguous: %s", nameList(found))
	default:
		return slices.MaxFunc(found, compareStability), nil
	}
}

// byAlias returns the product that has the name, or the name with :default
// after it, among its aliases. Where several have it, the newest of them.
func byAlias(products []*product, name string) *product {
	for _, alias := range []string{name, name + ":" + defaultVariant} {
		var found []*product
		for _, p := range products {
			if slices.Contains(p.aliases, alias) {
				found = append(found, p)
			}
		}
		if len(found) > 0 {
			return slices.MaxFunc(found, compareStability)
		}
	}
	return nil
}

// matching returns the products that a name without an alias can mean, sorted
// as products is.
func matching(products []*product, parts []string) []*product {
	fits := func(match func(p *product) bool) (found []*product) {
		for _, p := range products {
			if match(p) {
				found = append(found, p)
			}
		}
		return found
	}
	// Without a variant the default one is meant; some distributions have none.
	prefer := func(match func(p *product) bool) []*product {
		if found := fits(func(p *product) bool { return match(p) && p.variant == defaultVariant }); len(found) > 0 {
			return found
		}
		return fits(match)
	}
	switch len(parts) {
	case 1:
		if found := prefer(func(p *product) bool { return p.dist == parts[0] }); len(found) > 0 {
			return found
		}
		return prefer(func(p *product) bool { return p.release == parts[0] })
	case 2:
		return prefer(func(p *product) bool { return p.dist == parts[0] && p.release == parts[1] })
	case 3:
		return fits(func(p *product) bool {
			return p.dist == parts[0] && p.release == parts[1] && p.variant == parts[2]
		})
	default:
		return fits(func(p *product) bool {
			return p.dist == parts[0] && p.release == parts[1] && p.arch == parts[2] && p.variant == parts[3]
		})
	}
}

// stableReleases are the releases that the list of an image server does not
// tell from the others: Debian's stable ones, from the time of their release
// on, and Ubuntu's with long-term support, each from old to new.
var stableReleases = map[string][]string{
	"debian": {"buster", "bullseye", "bookworm", "trixie"},
	"devuan": {"beowulf", "chimaera", "daedalus", "excalibur"},
	"ubuntu": {"bionic", "focal", "jammy", "noble", "resolute"},
}

// rollingReleases are never chosen where there is another release.
var rollingReleases = []string{"edge", "sid", "unstable", "testing", "rawhide", "devel", "tumbleweed", "snapshot", "eln", "ceres"}

// stability ranks a release among those of its distribution; of equals the
// higher number, or the later name in the alphabet, is newer. From the top:
// those known as stable, those with a number or marked LTS, other names
// (code names, "current"), rolling ones.
func stability(p *product) (class, order int) {
	if i := slices.Index(stableReleases[p.dist], p.release); i >= 0 {
		return 3, i
	}
	switch {
	case slices.Contains(rollingReleases, p.release):
		return 0, 0
	case digits(p.release) > 0, strings.Contains(p.title, "LTS"):
		return 2, 0
	default:
		return 1, 0
	}
}

func compareStability(a, b *product) int {
	ac, ao := stability(a)
	bc, bo := stability(b)
	return cmp.Or(cmp.Compare(ac, bc), cmp.Compare(ao, bo), compareNatural(a.release, b.release))
}

// unknownImage is the error about a name that stands for none of products,
// those that are here for arch.
func unknownImage(products, here []*product, arch, name string) error {
	var others []string // architectures that have it
	for _, p := range products {
		if p.arch != arch && p.rootfs != nil && len(matching([]*product{p}, strings.Split(name, ":"))) > 0 {
			others = append(others, p.arch)
		}
	}
	err := fmt.Errorf("%w for %s", ErrUnknownImage, arch)
	if len(here) == 0 {
		return fmt.Errorf("%w: the server has no image for %s at all", err, arch)
	}
	if len(others) > 0 {
		slices.Sort(others)
		err = fmt.Errorf("%w (only for %s)", err, strings.Join(slices.Compact(others), ", "))
	}
	err = fmt.Errorf("%w: there is %s", err, nameList(here))
	if guess := similar(here, name); guess != "" {
		return &hinted{err, "did you mean " + guess + "?"}
	}
	return err
}

// nameList is the names of products in their order, with commas.
func nameList(products []*product) string {
	var names []string
	for _, p := range products {
		names = append(names, p.name())
	}
	return strings.Join(slices.Compact(names), ", ")
}

// similar returns the name among those of products that is most like name, ""
// if none is.
func similar(products []*product, name string) string {
	best, found := max(len(name)/3, 1)+1, ""
	for _, p := range products {
		for _, candidate := range []string{p.dist, p.release, p.name()} {
			d := spelling.Distance(name, candidate)
			if len(name) >= 3 && strings.HasPrefix(candidate, name) {
				d = 1 // arch, for archlinux
			}
			if d < best {
				best, found = d, candidate
			}
		}
	}
	if found != "" {
		return found
	}
	// alpine:3.99: the distribution is there, the release is not.
	dist, _, _ := strings.Cut(name, ":")
	if of := matching(products, []string{dist}); len(of) > 0 {
		return slices.MaxFunc(of, compareStability).name()
	}
	return ""
}
