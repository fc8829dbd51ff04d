package build

import (
	"strings"

	"github.com/ihucos/plash/spelling"
)

// unknown is the error about an action that there is not: it says which one may have been meant,
// or else how to see them all.
func (t *table) unknown(at position, what, written string) *UsageError {
	if near := t.suggest(written); near != "" {
		return usage(at, "", "%s: did you mean %s?", what, near)
	}
	return usage(at, listAdvice, "%s", what)
}

// suggest says which action may have been meant; "" if none is near.
func (t *table) suggest(written string) string {
	name := strings.TrimLeft(written, "-")
	if len(name) == 1 {
		// -a for -A.
		for _, other := range []string{strings.ToUpper(name), strings.ToLower(name)} {
			if t.byShort[other] != nil {
				return "-" + other
			}
		}
		return ""
	}
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	best, distance := "", len(name)/3+1
	for _, a := range t.list {
		if a.hidden {
			continue
		}
		for _, candidate := range append([]string{a.Name}, a.Aliases...) {
			if d := spelling.Distance(name, candidate); d < distance {
				best, distance = candidate, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return "--" + best
}

const listAdvice = "plash-build --list shows all actions"
