package build

import "strings"

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
			if d := editDistance(name, candidate); d < distance {
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

// editDistance is the number of bytes to insert, delete, replace or swap with
// their neighbour that makes a into b (optimal string alignment). It is not
// worked out for long strings.
func editDistance(a, b string) int {
	const limit = 64
	if len(a) > limit || len(b) > limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
