package runtime

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/fusefs/union"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/overlay/treetest"
)

// TestUnionLayers packs the upper directory of a union again and again: what the
// union showed is what the layers then are, mounted by the kernel, and in the next
// union.
func TestUnionLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, o := range map[string]union.Options{"devices": {}, "attributes": {XattrMarks: true}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			noError(t, cas.Init(dir))
			s, err := cas.Open(dir)
			noError(t, err)
			tree := t.TempDir()
			treetest.Make(t, tree, 7, treetest.Options{})
			layers := []overlay.Layer{packAs(t, s, tree, false)}
			for i := range uint64(6) {
				var upper, want string
				inUnion(t, s, layers, o, func(at, up string) {
					treetest.Change(t, at, 50+i, 40)
					want, upper = dumped(t, at), up
				})
				layers = append(layers, packAs(t, s, upper, true))
				inUnion(t, s, layers, o, func(at, _ string) {
					equal(t, "difference in the next union", treetest.Diff(want, dumped(t, at)), "")
				})
				m, err := overlay.Open(context.Background(), s, layers, overlay.Options{Backend: overlay.EROFS})
				noError(t, err)
				at := t.TempDir()
				noError(t, errors.Join(m.AttachTo(at), m.Close()))
				equal(t, "difference in the kernel's mount", treetest.Diff(want, dumped(t, at)), "")
				noError(t, unix.Unmount(at, 0))
			}
		})
	}
}

func noError(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func dumped(tb testing.TB, dir string) string {
	tb.Helper()
	d, err := treetest.Dump(dir)
	noError(tb, err)
	return d
}

func packAs(tb testing.TB, s *cas.Store, dir string, upper bool) overlay.Layer {
	tb.Helper()
	f, err := os.Open(dir)
	noError(tb, err)
	defer f.Close()
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(overlay.Pack(context.Background(), w, f, overlay.PackOptions{Upper: upper}))
	}()
	st, err := s.Ingest(context.Background(), r, cas.IngestOptions{})
	noError(tb, err)
	noError(tb, st.Publish())
	defer st.Close()
	return overlay.Layer{Digest: st.Digest(), Packed: true}
}

// inUnion does something in a mounted union.
func inUnion(tb testing.TB, s *cas.Store, layers []overlay.Layer, o union.Options, f func(dir, upper string)) {
	tb.Helper()
	base := tb.TempDir()
	at := filepath.Join(base, "m")
	o.Upper, o.Work = filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, d := range []string{at, o.Upper, o.Work} {
		noError(tb, os.Mkdir(d, 0o755))
	}
	noError(tb, overlay.PrepareUpper(context.Background(), s, layers, o.Upper))
	var digests []digest.Digest
	for _, l := range layers {
		digests = append(digests, l.Digest)
	}
	view, err := s.View(context.Background(), digests)
	noError(tb, err)
	u, err := union.New(view, o)
	noError(tb, err)
	opts := &fuse.MountOptions{AllowOther: true, DirectMountStrict: true, DirectMountFlags: unix.MS_MGC_VAL}
	u.Configure(opts)
	server, err := fuse.NewServer(u, at, opts)
	noError(tb, err)
	go server.Serve()
	noError(tb, server.WaitMount())
	defer func() {
		if err := server.Unmount(); err != nil {
			tb.Errorf("unmount: %v", err)
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
		server.Wait()
		noError(tb, errors.Join(u.Close(), view.Close()))
	}()
	f(at, o.Upper)
}
