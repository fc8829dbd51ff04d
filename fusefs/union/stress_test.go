package union

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestStress has several goroutines do the same things to the same names, some of
// which are in the layers. Whatever happens, what a file holds was written as a whole,
// and what is seen is what is seen after mounting again.
func TestStress(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		prepareOps(t, lower)
		m := newUnion(t, lower, o)
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() { m.worry(uint64(w), 250) })
		}
		wg.Wait()
		// The kernel and the server may have other opinions of the moment of a write.
		before := dumpOld(t, m.dir)
		m.remount()
		same(t, "the tree mounted again", before, dumpOld(t, m.dir))
	})
}

func (m *mounted) worry(seed uint64, n int) {
	r := rand.New(rand.NewPCG(seed, 1))
	name := func() string {
		dirs := []string{"", "dir/", "full/", "many/", "open/", "new/"}
		names := []string{"a", "b", "x", "file", "linked", "linked2", "big", "sym", "sub", fmt.Sprintf("%03d", r.IntN(20))}
		return m.at(dirs[r.IntN(len(dirs))] + names[r.IntN(len(names))])
	}
	for range n {
		a, b := name(), name()
		switch r.IntN(14) {
		case 0, 1:
			_ = os.WriteFile(a, []byte(strings.Repeat("w", 5000)), 0o644)
		case 2:
			_ = os.Remove(a)
		case 3, 4:
			_ = os.Rename(a, b)
		case 5:
			_ = os.Link(a, b)
		case 6:
			_ = os.Mkdir(a, 0o755)
		case 7:
			_ = os.Chmod(a, os.FileMode(0o600+r.IntN(64)))
		case 8:
			_ = os.RemoveAll(a)
		case 9:
			_, _ = os.ReadDir(m.at("dir"))
		case 10:
			if f, err := os.OpenFile(a, os.O_RDWR|os.O_APPEND, 0); err == nil {
				_, _ = f.WriteString("appended")
				_ = os.Remove(a)
				_, _ = f.Seek(0, 0)
				_, _ = f.Read(make([]byte, 100))
				_ = f.Close()
			}
		case 11:
			_ = os.Symlink("x", a)
		case 12:
			_, _ = os.ReadFile(a)
		case 13:
			_ = os.Mkdir(m.at("new"), 0o755)
			_ = os.Truncate(a, int64(r.IntN(10000)))
		}
	}
}
