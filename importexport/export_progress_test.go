package importexport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/cas/tarstream"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// largeData is how much data of files largeContainer has: enough for progress to be shown.
const largeData = 65<<20 + 4 + 100<<10 + 1<<20

// largeContainer has a large file, a small one of two names, one that is no multiple of a block,
// a sparse one and one that is a hole.
func largeContainer(t *testing.T, st *container.Store) container.ID {
	t.Helper()
	r, w := io.Pipe()
	go func() {
		tw := tarstream.NewWriter(w)
		put := func(name string, size, data int64, sparse ...tarstream.Segment) error {
			e := tarstream.Entry{Name: name, Type: tarstream.TypeReg, Mode: 0o644, Size: size, Sparse: sparse}
			if err := tw.WriteHeader(&e); err != nil {
				return err
			}
			_, err := tw.ReadFrom(io.LimitReader(ones{}, data))
			return err
		}
		err := errors.Join(put("large", 65<<20, 65<<20), put("dir/small", 4, 4), put("odd", 100<<10, 100<<10),
			put("sparse", 1<<32, 1<<20, tarstream.Segment{Off: 1 << 30, Len: 1 << 20}), put("hole", 1<<30, 0, tarstream.Segment{Off: 1 << 30}),
			tw.WriteHeader(&tarstream.Entry{Name: "dir/again", Type: tarstream.TypeLink, Linkname: "dir/small"}))
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	id, err := ImportTar(t.Context(), st, r, "large", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ones is no end of bytes that are not zero: programs make holes of zeros.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

// A recorder is a display that remembers what it was told.
type recorder struct {
	t           *testing.T
	total, done int64
	starts      int
}

func (r *recorder) Start(total int64) { r.total = total; r.starts++ }

func (r *recorder) Set(done int64) {
	if done <= r.done || done > r.total {
		r.t.Errorf("%d bytes after %d, of %d", done, r.done, r.total)
	}
	r.done = done
}

func (r *recorder) Retry(why error, _ time.Duration) { r.t.Errorf("again, after %v", why) }
func (r *recorder) Complete()                        { r.t.Error("there is something left to extract") }
func (r *recorder) Close()                           {}

// A wayOut writes a container to a place, and tells a display.
type wayOut func(ctx context.Context, id container.ID, place string, d progress.Display) error

// waysOut are those that do not end in an engine or a registry.
func waysOut(st *container.Store) map[string]wayOut {
	file := func(write func(context.Context, *container.Store, container.ID, io.Writer, ExportOptions) error) wayOut {
		return func(ctx context.Context, id container.ID, place string, d progress.Display) error {
			return output.WriteFile(place, func(w io.Writer) error { return write(ctx, st, id, w, ExportOptions{Progress: d}) })
		}
	}
	path := func(write func(context.Context, *container.Store, container.ID, string, ExportOptions) error) wayOut {
		return func(ctx context.Context, id container.ID, place string, d progress.Display) error {
			return write(ctx, st, id, place, ExportOptions{Progress: d})
		}
	}
	ref := func(transport string) wayOut {
		return func(ctx context.Context, id container.ID, place string, d progress.Display) error {
			return ExportDocker(ctx, st, id, transport+":"+place, DockerOptions{Progress: d})
		}
	}
	return map[string]wayOut{
		"tar": file(ExportTar), "layer": file(ExportLayer),
		"ext4": path(ExportExt4), "erofs": path(ExportEROFS), "dir": path(ExportDir),
		"squashfs": path(func(ctx context.Context, st *container.Store, id container.ID, path string, o ExportOptions) error {
			return ExportSquashfs(ctx, st, id, path, "", o)
		}),
		"docker-archive": ref("docker-archive"), "oci-archive": ref("oci-archive"), "oci": ref("oci"),
	}
}

// TestExportProgress: a display is told of large exports, of all that there is and no more.
func TestExportProgress(t *testing.T) {
	st := newStore(t)
	id := largeContainer(t, st)
	r, err := st.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	for name, export := range waysOut(st) {
		place := filepath.Join(t.TempDir(), "place")
		d := &recorder{t: t}
		if err := export(t.Context(), id, place, d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		least, most := int64(largeData), int64(largeData)
		switch name {
		case "layer":
			least, most = r.Size, r.Size
		case "docker-archive", "oci-archive", "oci": // the config and the manifest, too
			least, most = r.Size+100, r.Size+10_000
		}
		if d.starts != 1 || d.done != d.total || d.total < least || d.total > most {
			t.Errorf("%s: %d times begun, %d bytes of %d, want %d", name, d.starts, d.done, d.total, least)
		}
		if name != "oci" {
			continue
		}
		// What a layout has is not written again, and nothing is said of it.
		again := &recorder{t: t}
		if err := export(t.Context(), id, place, again); err != nil || again.starts != 0 {
			t.Errorf("%s again: %d times begun; %v", name, again.starts, err)
		}
	}
}

// A canceller is a display that ends the work when half of it is done.
type canceller struct {
	progress.Display
	total  int64
	cancel context.CancelFunc
}

func (c *canceller) Start(total int64) { c.total = total; c.Display.Start(total) }

func (c *canceller) Set(done int64) {
	c.Display.Set(done)
	if done >= c.total/2 {
		c.cancel()
	}
}

// TestExportProgressCutOff: what breaks off does not say that it is done, and leaves a whole line.
func TestExportProgressCutOff(t *testing.T) {
	st := newStore(t)
	id := largeContainer(t, st)
	for name, export := range waysOut(st) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var printed bytes.Buffer
		err := export(ctx, id, filepath.Join(t.TempDir(), "place"), &canceller{Display: progress.NewPlain(&printed), cancel: cancel})
		got := printed.String()
		if !errors.Is(err, context.Canceled) || !strings.HasPrefix(got, "[0%|") || !strings.HasSuffix(got, "0%\n") || strings.Contains(got, "100%") {
			t.Errorf("%s: printed %q; %v", name, got, err)
		}
	}
}

// TestExportProgressFull: an export to a full disk leaves a whole line, too.
func TestExportProgressFull(t *testing.T) {
	st := newStore(t)
	id := largeContainer(t, st)
	for _, name := range []string{"tar", "layer", "docker-archive", "oci-archive"} {
		var printed bytes.Buffer
		err := waysOut(st)[name](t.Context(), id, "/dev/full", progress.NewPlain(&printed))
		if got := printed.String(); !errors.Is(err, syscall.ENOSPC) || got != "" && got != "[0%\n" {
			t.Errorf("%s: printed %q; %v", name, got, err)
		}
	}
}
