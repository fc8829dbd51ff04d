package overlay

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd/leftover"
	"github.com/ihucos/plash/overlay/treetest"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m, loops)) }

// loops lists the loop devices of a test's files.
func loops() string {
	var out strings.Builder
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), os.TempDir()+"/") {
			out.WriteString(f + " " + string(b))
		}
	}
	return out.String()
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

func newStore(tb testing.TB) *cas.Store {
	tb.Helper()
	return newStoreAt(tb, filepath.Join(tb.TempDir(), "store"))
}

func newStoreAt(tb testing.TB, dir string) *cas.Store {
	tb.Helper()
	must(tb, cas.Init(dir))
	s, err := cas.Open(dir)
	must(tb, err)
	return s
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// ingest publishes what write writes as a layer.
func ingest(tb testing.TB, s *cas.Store, write func(w io.Writer) error) digest.Digest {
	tb.Helper()
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	st, err := s.Ingest(context.Background(), r, cas.IngestOptions{})
	must(tb, err)
	must(tb, st.Publish())
	d := st.Digest()
	must(tb, st.Close())
	return d
}

// packLayer packs a directory into the store.
func packLayer(tb testing.TB, s *cas.Store, dir string, upper bool) Layer {
	tb.Helper()
	f, err := os.Open(dir)
	must(tb, err)
	defer f.Close()
	d := ingest(tb, s, func(w io.Writer) error {
		return Pack(context.Background(), w, f, PackOptions{Upper: upper})
	})
	return Layer{Digest: d, Packed: true}
}

func packBytes(tb testing.TB, dir string, o PackOptions) []byte {
	tb.Helper()
	f, err := os.Open(dir)
	must(tb, err)
	defer f.Close()
	var b bytes.Buffer
	must(tb, Pack(context.Background(), &b, f, o))
	return b.Bytes()
}

// withMount does something in a mounted container.
func withMount(tb testing.TB, s *cas.Store, layers []Layer, o Options, f func(dir string)) {
	tb.Helper()
	m, err := Open(context.Background(), s, layers, o)
	must(tb, err)
	dir := tb.TempDir()
	must(tb, m.AttachTo(dir))
	must(tb, m.Close())
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			tb.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	f(dir)
}

// upperDirs makes an upper and a work directory.
func upperDirs(tb testing.TB, s *cas.Store, layers []Layer) (upper, work string) {
	tb.Helper()
	dir := tb.TempDir()
	upper, work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	must(tb, os.Mkdir(upper, 0o755))
	must(tb, os.Mkdir(work, 0o755))
	must(tb, PrepareUpper(context.Background(), s, layers, upper))
	return upper, work
}

func dump(tb testing.TB, dir string) string {
	tb.Helper()
	d, err := treetest.Dump(dir)
	must(tb, err)
	return d
}

func same(tb testing.TB, what, want, got string) {
	tb.Helper()
	if diff := treetest.Diff(want, got); diff != "" {
		tb.Errorf("%s differs:\n%s", what, diff)
	}
}

// A way is a way to mount, with what older kernels would need forced on this one.
type way struct {
	name    string
	backend Backend
	set     func()
}

var ways = []way{
	{"erofs", EROFS, func() {}},
	{"erofs-loop", EROFS, func() { force.loop = true }},
	{"erofs-attach", EROFS, func() { force.attach = true }},
	{"unpack", Unpack, func() {}},
	{"unpack-attach", Unpack, func() { force.attach = true }},
	{"unpack-mount2", Unpack, func() { force.mount2 = true }},
	{"unpack-noclone", Unpack, func() { force.noClone = true }},
}

// eachWay runs a test in each way of mounting.
func eachWay(t *testing.T, f func(t *testing.T, b Backend)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			saved := force
			defer func() { force = saved }()
			w.set()
			f(t, w.backend)
		})
	}
}
