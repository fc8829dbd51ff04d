package overlay

import (
	"testing"

	"github.com/ihucos/plash/fusefs/posixtest"
)

// TestPosix holds writable containers against ext4.
func TestPosix(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	posixtest.Fixture(t, src)
	s := newStore(t)
	layers := []Layer{packLayer(t, s, src, false)}
	for _, b := range []Backend{EROFS, Unpack} {
		t.Run(string(b), func(t *testing.T) {
			o := posixtest.Overlayfs()
			if b == EROFS {
				// overlayfs wants the file where it lies to have an operation that sets
				// lists, and EROFS has none (Linux 6.18, ovl_set_or_remove_acl).
				for _, name := range []string{"set", "remove", "that is a mode", "default, removed"} {
					o.May["acl/"+name+"/lower"] = "the list of a file of EROFS cannot be set before it is copied up"
				}
			}
			upper, work := upperDirs(t, s, layers)
			withMount(t, s, layers, Options{Backend: b, Upper: upper, Work: work}, func(dir string) {
				posixtest.Run(t, dir, o)
			})
		})
	}
}
