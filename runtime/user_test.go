package runtime

import (
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

// TestUsers runs the tests of this package once more, by plain users.
func TestUsers(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("the same tests again")
	}
	for _, name := range []string{hosttest.User, hosttest.BareUser} {
		t.Run(name, func(t *testing.T) { hosttest.RunAs(t, name, "^Test", "-test.short") })
	}
}
