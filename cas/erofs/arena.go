package erofs

// arena is a growing list whose elements never move: unlike a slice it leaves no
// copies behind as it grows, and pointers into it stay good.
type arena[T any] struct {
	blocks [][]T
	n      int
}

const arenaBits = 10 // binary logarithm of a block's elements

// at returns element i.
func (a *arena[T]) at(i uint32) *T {
	return &a.blocks[i>>arenaBits][i&(1<<arenaBits-1)]
}

// add appends an element.
func (a *arena[T]) add(v T) {
	if a.n>>arenaBits == len(a.blocks) {
		a.blocks = append(a.blocks, make([]T, 0, 1<<arenaBits))
	}
	b := &a.blocks[a.n>>arenaBits]
	*b = append(*b, v)
	a.n++
}
