package share

import (
	"os"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

// TestUsers runs the tests of this package once more, by a plain user.
func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	hosttest.RunAs(t, hosttest.User, "^Test")
}
