package union

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestData writes a file of the layers at random, in all ways there are, and compares
// what is read, by handles old and new, with what it should be.
func TestData(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		prepareOps(t, lower)
		for seed := range uint64(3) {
			m := newUnion(t, lower, o)
			c := newChecked(t, m.at("big"), seed)
			for range 1500 {
				c.step()
			}
			c.close()
			m.remount()
			got, err := os.ReadFile(m.at("big"))
			must(t, err)
			if !bytes.Equal(got, c.want) {
				t.Errorf("seed %d: mounted again, %d bytes are not the %d that were written", seed, len(got), len(c.want))
			}
		}
	})
}

// A checked file is known to have the content want.
type checked struct {
	tb   testing.TB
	path string
	r    *rand.Rand
	want []byte
	old  *os.File // opened before anything was written
	rw   *os.File
}

func newChecked(tb testing.TB, path string, seed uint64) *checked {
	c := &checked{tb: tb, path: path, r: rand.New(rand.NewPCG(seed, 2))}
	var err error
	c.old, err = os.Open(path)
	must(tb, err)
	c.want, err = io.ReadAll(io.NewSectionReader(c.old, 0, 1<<30))
	must(tb, err)
	if seed > 0 { // then the kernel may move the data by itself
		must(tb, c.old.Close())
		c.old = nil
	}
	c.reopen(os.O_RDWR)
	return c
}

func (c *checked) reopen(flags int) {
	if c.rw != nil {
		must(c.tb, c.rw.Close())
	}
	var err error
	c.rw, err = os.OpenFile(c.path, flags, 0)
	must(c.tb, err)
}

func (c *checked) close() {
	must(c.tb, c.rw.Close())
	if c.old != nil {
		must(c.tb, c.old.Close())
	}
}

const maxChecked = 400 << 10

func (c *checked) grow(n int) {
	if n > len(c.want) {
		c.want = append(c.want, make([]byte, n-len(c.want))...)
	}
}

func (c *checked) step() {
	off, n := c.r.IntN(maxChecked), 1+c.r.IntN(20000)
	b := bytes.Repeat([]byte{byte(c.r.IntN(256))}, n)
	switch c.r.IntN(16) {
	case 0, 1, 2:
		_, err := c.rw.WriteAt(b, int64(off))
		must(c.tb, err)
		c.grow(off + n)
		copy(c.want[off:], b)
	case 3:
		must(c.tb, os.Truncate(c.path, int64(off)))
		c.resize(off)
	case 4:
		must(c.tb, c.rw.Truncate(int64(off)))
		c.resize(off)
	case 5:
		if c.r.IntN(8) == 0 {
			c.reopen(os.O_RDWR | os.O_TRUNC)
			c.want = c.want[:0]
		}
	case 6:
		c.reopen(os.O_RDWR)
	case 7:
		f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_APPEND, 0)
		must(c.tb, err)
		_, err = f.Write(b)
		must(c.tb, errors.Join(err, f.Close()))
		c.want = append(c.want, b...)
	case 8:
		if len(c.want) > 0 {
			must(c.tb, unix.Fallocate(int(c.rw.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)))
			if off < len(c.want) {
				clear(c.want[off:min(off+n, len(c.want))])
			}
		}
	case 9, 10:
		c.mapped(off, b)
	case 11:
		must(c.tb, c.rw.Sync())
	default:
		c.compare(off, n)
	}
}

func (c *checked) resize(n int) {
	if n <= len(c.want) {
		c.want = c.want[:n:n]
	}
	c.grow(n)
}

// mapped writes through a mapping.
func (c *checked) mapped(off int, b []byte) {
	if off+len(b) > len(c.want) {
		return
	}
	m, err := unix.Mmap(int(c.rw.Fd()), 0, len(c.want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(c.tb, err)
	copy(m[off:], b)
	copy(c.want[off:], b)
	if !bytes.Equal(m, c.want) {
		c.tb.Fatalf("mapping of %d bytes differs", len(m))
	}
	must(c.tb, unix.Munmap(m))
}

func (c *checked) compare(off, n int) {
	end := min(off+n, len(c.want))
	off = min(off, end)
	for _, f := range []*os.File{c.rw, c.old} {
		if f == nil {
			continue
		}
		got := make([]byte, n)
		k, err := f.ReadAt(got, int64(off))
		if err != nil && err != io.EOF {
			c.tb.Fatal(err)
		}
		if !bytes.Equal(got[:k], c.want[off:min(off+n, len(c.want))]) {
			c.tb.Fatalf("%d bytes at %d of %d differ", n, off, len(c.want))
		}
	}
	st, err := os.Stat(c.path)
	must(c.tb, err)
	if st.Size() != int64(len(c.want)) {
		c.tb.Fatalf("size is %d, not %d", st.Size(), len(c.want))
	}
}

// TestTruncateWhileOpened has a file made longer while somebody else empties it and writes to
// it: it is seen to be as long as it is.
func TestTruncateWhileOpened(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		m := newUnion(t, "", o)
		must(t, os.WriteFile(m.at("file"), nil, 0o644))
		for round := range 1000 {
			var wg sync.WaitGroup
			wg.Go(func() { must(t, os.WriteFile(m.at("file"), make([]byte, 5000), 0o644)) })
			must(t, os.Truncate(m.at("file"), 8000))
			wg.Wait()
			seen, err := os.Stat(m.at("file"))
			must(t, err)
			is, err := os.Stat(filepath.Join(m.upper, "file"))
			must(t, err)
			if seen.Size() != is.Size() {
				t.Fatalf("round %d: %d bytes are seen, and it has %d", round, seen.Size(), is.Size())
			}
		}
	})
}

// TestTruncateUnopenable empties a file that the server, who is no root, copies up and then
// could not open: it is emptied and written to, or it stays.
func TestTruncateUnopenable(t *testing.T) {
	needRoot(t)
	const uid = 1000
	lower := t.TempDir()
	for _, name := range []string{"open", "truncate", "mode"} {
		must(t, os.WriteFile(lower+"/"+name, []byte("content"), 0o444))
		must(t, os.Chown(lower+"/"+name, uid, uid))
	}
	m := newUnion(t, lower, Options{})
	m.unmount()
	for _, dir := range []string{m.upper, m.work} {
		must(t, os.Chown(dir, uid, uid))
	}
	openWay(t, m.upper)
	openWay(t, m.store.Dir()+"/x")
	m.user = uid
	m.mount()
	must(t, as(uid, uid, 0, nil, func() error { return os.Chmod(m.at("mode"), 0o600) }))
	write := func(name string) error { return os.WriteFile(m.at(name), []byte("new"), 0) }
	truncate := func(name string) error { return os.Truncate(m.at(name), 3) }
	for name, change := range map[string]func(name string) error{"open": write, "truncate": truncate} {
		err := change(name)
		b, readErr := os.ReadFile(m.at(name))
		must(t, readErr)
		want := map[string]string{"open": "new", "truncate": "con"}[name]
		if err != nil {
			want = "content"
		}
		if string(b) != want {
			t.Errorf("%s: %v, and the file holds %q, want %q", name, err, b, want)
		}
	}
}

// TestShortBlob cuts off the blob that a file lies in: who reads the file gets an error, and neither
// zeros nor a file that ends early.
func TestShortBlob(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		must(t, os.WriteFile(filepath.Join(lower, "file"), bytes.Repeat([]byte("content "), 32<<10), 0o644))
		m := newUnion(t, lower, o)
		blob := m.store.BlobPath(m.layers[0])
		must(t, os.Chmod(blob, 0o644))
		must(t, os.Truncate(blob, 100_000))
		if b, err := os.ReadFile(m.at("file")); !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v, after %d bytes", err, len(b))
		}
		if err := os.Chmod(m.at("file"), 0o600); !errors.Is(err, unix.EIO) {
			t.Errorf("copy up: %v", err)
		}
	})
}
