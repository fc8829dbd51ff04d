package overlay

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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
		known := posixtest.Overlayfs()
		if b == EROFS {
			// overlayfs wants the file where it lies to have an operation that sets
			// lists (ovl_set_acl in Linux' fs/overlayfs/inode.c), and EROFS has none.
			for _, name := range []string{"set", "remove", "that is a mode", "default, removed"} {
				known.May["acl/"+name+"/lower"] = "the list of a file of EROFS cannot be set before it is copied up"
			}
		}
		t.Run(string(b), func(t *testing.T) {
			upper, work := upperDirs(t, s, layers)
			withMount(t, s, layers, Options{Backend: b, Upper: upper, Work: work}, func(dir string) {
				posixtest.Run(t, dir, known)
			})
		})
		t.Run(string(b)+" in memory", func(t *testing.T) {
			tmp := t.TempDir()
			must(t, unix.Mount("tmpfs", tmp, "tmpfs", 0, ""))
			defer func() { must(t, unix.Unmount(tmp, 0)) }()
			maps.Copy(known.Known, posixtest.Tmpfs().Known)
			o := Options{Backend: b, Upper: filepath.Join(tmp, "upper"), Work: filepath.Join(tmp, "work")}
			must(t, errors.Join(os.Mkdir(o.Upper, 0o755), os.Mkdir(o.Work, 0o755)))
			withMount(t, s, layers, o, func(dir string) { posixtest.Run(t, dir, known) })
		})
	}
}
