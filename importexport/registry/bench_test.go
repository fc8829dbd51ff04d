package registry

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"golang.org/x/sync/errgroup"
)

// BenchmarkPull pulls ten layers of files of the Go distribution from Debian's registry on the
// loopback interface into a store, and compares that in the same round with what it
// cannot do without, and with what skopeo takes for bringing them to a directory.
func BenchmarkPull(b *testing.B) {
	host, _ := registrytest.Real{}.Start(b)
	layers := make([][]byte, 10)
	for i := range layers {
		layers[i] = sourceTar(b, i, 30<<20)
	}
	c := New(Options{})
	defer c.Close()
	ref, err := image.ParseRef("docker://" + host + "/ten:1")
	if err != nil {
		b.Fatal(err)
	}
	im := storeImage(b, layers...)
	if _, err := c.Push(b.Context(), ref, im, PushOptions{Store: newStore(b)}); err != nil {
		b.Fatal(err)
	}
	var packed [][]byte
	pulledIm, err := c.Pull(b.Context(), ref, PullOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range pulledIm.Layers {
		r, err := l.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		z, err := io.ReadAll(r)
		if err != nil {
			b.Fatal(err)
		}
		packed = append(packed, z)
	}
	var pull, floor, skopeo time.Duration
	for b.Loop() {
		pull += took(b, func() error { return pullInto(b, c, ref) })
		floor += took(b, func() error { return unpackAll(packed) })
		if _, err := exec.LookPath("skopeo"); err == nil {
			dir := b.TempDir()
			skopeo += took(b, func() error {
				return exec.Command("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+host+"/ten:1", "dir:"+dir).Run()
			})
		}
	}
	b.ReportMetric(pull.Seconds()/floor.Seconds(), "pull/floor")
	b.ReportMetric(pull.Seconds()/skopeo.Seconds(), "pull/skopeo")
	b.ReportMetric(pull.Seconds()/float64(b.N), "s/pull")
}

func took(b *testing.B, fn func() error) time.Duration {
	from := time.Now()
	if err := fn(); err != nil {
		b.Fatal(err)
	}
	return time.Since(from)
}

// pullInto brings an image's layers into a new store, as many at once as there are cores.
func pullInto(b *testing.B, c *Client, ref image.Ref) error {
	st := newStore(b)
	im, err := c.Pull(b.Context(), ref, PullOptions{})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range im.Layers {
		g.Go(func() error {
			r, err := l.Open(b.Context())
			if err != nil {
				return err
			}
			defer r.Close()
			staged, err := st.Ingest(b.Context(), r, cas.IngestOptions{Expect: l.DiffID})
			if err != nil {
				return err
			}
			defer staged.Close()
			return staged.Publish()
		})
	}
	return g.Wait()
}

// unpackAll decompresses the layers, and hashes them packed and unpacked, on all cores.
func unpackAll(packed [][]byte) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range packed {
		g.Go(func() error {
			sha256.Sum256(p)
			r, done, err := cas.Decompress(bytes.NewReader(p))
			if err != nil {
				return err
			}
			defer done()
			_, err = io.Copy(sha256.New(), r)
			return err
		})
	}
	return g.Wait()
}

// sourceTar is a tar of files that compress as those of images do.
func sourceTar(b *testing.B, n int, size int64) []byte {
	b.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	skip := n * 700
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if skip--; skip > 0 {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: path[1:], Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
		if int64(out.Len()) > size {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}
