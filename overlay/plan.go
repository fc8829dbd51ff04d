package overlay

import "github.com/opencontainers/go-digest"

// planLayers says how many of the bottom layers are served by one merged tree;
// the layers above it are stacked by overlayfs one by one, and are at most
// maxStack. Have tells whether the merged tree of some bottom layers is there
// already. Where nothing is, the smallest part is merged that lets the rest be
// stacked, so that the next steps of a build find it.
func planLayers(layers []Layer, maxStack int, have func([]digest.Digest) bool) int {
	n := len(layers)
	if n <= 1 {
		return n
	}
	// A layer that is not Packed cannot lie on others: it may lack parents.
	least := 1
	for i := n - 1; i > 0; i-- {
		if !layers[i].Packed {
			least = i + 1
			break
		}
	}
	all := digests(layers)
	for k := n; k >= max(least, n-maxStack); k-- {
		if have(all[:k]) {
			return k
		}
	}
	if n-least <= maxStack {
		return least
	}
	return n
}
