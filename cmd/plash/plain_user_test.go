package main

import (
	"os"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

// TestScriptsUser runs all scripts once more, by plain users: one who has subordinate ids, and
// one who has not.
func TestScriptsUser(t *testing.T) { asUsers(t, "^TestScripts(Crun)?$") }

// TestScriptsUserBackends does so on backends that are not the first choice.
func TestScriptsUserBackends(t *testing.T) {
	if testing.Short() {
		t.Skip("the same scripts again")
	}
	asUsers(t, "^TestScripts(Unpack|Union)$")
}

// asUsers runs tests of this package as plain users.
func asUsers(t *testing.T, tests string) {
	if os.Geteuid() != 0 {
		t.Skip("becomes other users by root")
	}
	for _, name := range []string{hosttest.User, hosttest.BareUser} {
		t.Run(name, func(t *testing.T) { hosttest.RunAs(t, name, tests) })
	}
}
