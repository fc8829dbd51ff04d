package union

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nodes tells how many nodes the server has, and of how many it keeps descriptors.
func (m *mounted) nodes() (nodes, kept int) {
	m.tb.Helper()
	must(m.tb, m.server.Process.Signal(unix.SIGUSR1))
	line, err := m.out.ReadString('\n')
	must(m.tb, err)
	_, err = fmt.Sscan(line, &nodes, &kept)
	must(m.tb, err)
	return nodes, kept
}

// forget has the kernel forget all that is not in use.
func (m *mounted) forget() {
	m.tb.Helper()
	must(m.tb, unix.Mount("", m.dir, "", unix.MS_REMOUNT, "")) // shrink_dcache_sb
}

// settle waits until there are at most some nodes.
func (m *mounted) settle(most int) (nodes int) {
	m.tb.Helper()
	for range 200 {
		m.forget()
		if nodes, _ = m.nodes(); nodes <= most {
			return nodes
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nodes
}

const manyFiles = 500

// TestForget copies many files up in all ways there are, and has the kernel forget them.
// The server then knows none of them, and still they are the same files.
func TestForget(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		o.Volatile = true
		lower := t.TempDir()
		for i := range manyFiles {
			dir := filepath.Join(lower, fmt.Sprintf("d%d/e%d", i%10, i%7))
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("content"), 0o644))
			must(t, os.Link(filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, fmt.Sprint(i, "b"))))
			must(t, os.Symlink("x", filepath.Join(dir, fmt.Sprint(i, "s"))))
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i, "r")), []byte("content"), 0o644))
		}
		m := newUnion(t, lower, o)
		numbers := map[string]uint64{}
		look := func(path string) uint64 {
			var st unix.Stat_t
			must(t, unix.Lstat(path, &st))
			return st.Ino
		}
		at := func(i int, s string) string {
			return m.at(fmt.Sprintf("d%d/e%d/%d%s", i%10, i%7, i, s))
		}
		for i := range manyFiles {
			for _, s := range []string{"", "s", "r"} {
				numbers[at(i, s)] = look(at(i, s))
			}
			must(t, os.Chmod(at(i, ""), 0o600))
			must(t, os.Lchown(at(i, "s"), 7, 7))
			must(t, os.Rename(at(i, "r"), at(i, "n")))
			numbers[at(i, "n")] = numbers[at(i, "r")]
			delete(numbers, at(i, "r"))
		}
		open, err := os.OpenFile(at(0, ""), os.O_RDWR, 0)
		must(t, err)
		before := dumpOld(t, m.dir)
		if got, _ := m.nodes(); got < 3*manyFiles {
			t.Errorf("there are %d nodes, which were to be more", got)
		}
		most := 20 // the root, and what is open, with the way to it
		if o.XattrMarks {
			most += manyFiles + 71 // symbolic links cannot be marked, and stay with their directories
		}
		if got := m.settle(most); got > most {
			t.Errorf("%d nodes are left", got)
		}
		same(t, "the tree", before, dumpOld(t, m.dir))
		for path, want := range numbers {
			if got := look(path); got != want {
				t.Errorf("%s is number %d, it was %d", path, got, want)
			}
		}
		_, err = open.WriteAt([]byte("C"), 0)
		must(t, err)
		for i := range manyFiles {
			want := "content"
			if i == 0 {
				want = "Content"
			}
			for _, s := range []string{"", "b"} {
				if b, err := os.ReadFile(at(i, s)); err != nil || string(b) != want {
					t.Errorf("%s holds %q, %v", at(i, s), b, err)
				}
			}
		}
		for i := range 10 {
			must(t, os.RemoveAll(m.at(fmt.Sprint("d", i))))
		}
		must(t, open.Close())
		if got := m.settle(2); got > 2 {
			t.Errorf("after all was deleted, %d nodes are left", got)
		}
	})
}

// TestForgetBusy looks files up, copies them up and has the kernel forget them, all at
// once: nobody sees the file of the layers again.
func TestForgetBusy(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		const files = 40
		for i := range files {
			must(t, os.WriteFile(filepath.Join(lower, fmt.Sprint(i)), []byte("old"), 0o644))
		}
		m := newUnion(t, lower, o)
		done := make(chan struct{})
		stopped := make(chan error, 4)
		for range 2 {
			go func() { // forgets
				for {
					select {
					case <-done:
						stopped <- nil
						return
					default:
						_ = unix.Mount("", m.dir, "", unix.MS_REMOUNT, "")
					}
				}
			}()
			go func() { // looks up
				for i := 0; ; i++ {
					select {
					case <-done:
						stopped <- nil
						return
					default:
					}
					if _, err := os.Stat(m.at(fmt.Sprint(i % files))); err != nil {
						stopped <- err
						return
					}
				}
			}()
		}
		for round := range 10 {
			for i := range files {
				path := m.at(fmt.Sprint(i))
				want := fmt.Sprint("new ", round)
				must(t, os.WriteFile(path, []byte(want), 0))
				if b, err := os.ReadFile(path); err != nil || string(b) != want {
					t.Errorf("%s holds %q, %v, want %q", path, b, err, want)
				}
			}
		}
		close(done)
		for range 4 {
			must(t, <-stopped)
		}
	})
}
