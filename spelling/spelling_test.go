package spelling

import (
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"build", "build", 0},
		{"biuld", "build", 1},
		{"buld", "build", 1},
		{"builld", "build", 1},
		{"bxild", "build", 1},
		{"kitten", "sitting", 3},
		{strings.Repeat("x", 65), "x", 65},
	} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if Distance(tt.a, tt.b) != Distance(tt.b, tt.a) {
			t.Errorf("Distance(%q, %q) is not symmetric", tt.a, tt.b)
		}
	}
}
