package overlay

import (
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestPlanLayers(t *testing.T) {
	for _, c := range []struct {
		layers string // p: packed, i: imported
		have   string // lengths of merged chains that are there
		want   int
	}{
		{"", "", 0},
		{"i", "", 1},
		{"ip", "1", 1},
		{"ip", "", 1},
		{"ip", "1 2", 2},
		{"pppp", "1 3", 3},
		{"iip", "1", 2},     // an imported layer may lack parents: merge these two
		{"iii", "1", 3},     //
		{"pip", "1 2 3", 3}, //
		{"i" + strings.Repeat("p", 4), "1", 1},
		{"i" + strings.Repeat("p", 5), "1", 6}, // too many: merge all
		{"i" + strings.Repeat("p", 9), "1 6", 6},
		{"i" + strings.Repeat("p", 9), "1 5", 10},
	} {
		var layers []Layer
		for i, k := range c.layers {
			layers = append(layers, Layer{Digest: digest.FromString(strconv.Itoa(i)), Packed: k == 'p'})
		}
		got := planLayers(layers, 4, func(chain []digest.Digest) bool {
			for n := range strings.FieldsSeq(c.have) {
				if n == strconv.Itoa(len(chain)) {
					return true
				}
			}
			return false
		})
		if got != c.want {
			t.Errorf("%s with merged %s: %d, not %d", c.layers, c.have, got, c.want)
		}
	}
}
