// Package spelling tells how near a mistyped word is to one that there is. It
// knows no words itself.
package spelling

// limit is the length in bytes from which on words are not compared.
const limit = 64

// Distance is how many bytes must be inserted, deleted, replaced or swapped with
// their neighbour to make b of a (optimal string alignment). Words longer than
// 64 bytes are as far apart as they are long.
func Distance(a, b string) int {
	if len(a) > limit || len(b) > limit {
		return max(len(a), len(b))
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			replaced := last[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(replaced, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
