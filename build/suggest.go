package build

import (
	"strings"

	"github.com/ihucos/plash/spelling"
)

// suggest says which action may have been meant; "" if none is near.
func (t *table) suggest(written string) string {
	name := strings.TrimLeft(written, "-")
	if len(name) == 1 {
		// -a for -A.
		for _, other := range []string{strings.ToUpper(name), strings.ToLower(name)} {
			if t.byShort[other] != nil {
				return didYouMean("-" + other)
			}
		}
		return listAdvice
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
		return listAdvice
	}
	return didYouMean("--" + best)
}

const listAdvice = "plash-build --list shows all actions"

func didYouMean(action string) string { return "did you mean " + action + "?" }
