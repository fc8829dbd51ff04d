// Package matrix runs plash, as it is installed, on many kinds of hosts, made of what one machine
// has: users, filters, containers. What works there, and on which backend, is a table of
// the README.
package matrix

import (
	"flag"
	"os"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

var update = flag.Bool("update", false, "write the table into the README")

func TestMain(m *testing.M) {
	if code, is := hosttest.Become(os.Args, os.Stdin, os.Stdout, os.Stderr); is {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
