package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKill kills the server while files are written, copied up and removed. What was
// synced is there afterwards, and the upper directory can be gone on with.
func TestKill(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		prepareOps(t, lower)
		m := newUnion(t, lower, o)
		for round := range 5 {
			synced := make(chan []string)
			go func() { synced <- m.churn(round) }()
			time.Sleep(time.Duration(20+30*round) * time.Millisecond)
			must(t, m.server.Process.Kill())
			_ = m.server.Wait()
			names := <-synced
			must(t, unix.Unmount(m.dir, unix.MNT_DETACH))
			m.mount()
			for _, name := range names {
				b, err := os.ReadFile(m.at(name))
				if err != nil || string(b) != strings.Repeat(name, 1000) {
					t.Errorf("%s was synced and has %d bytes, %v", name, len(b), err)
				}
			}
			left, err := filepath.Glob(filepath.Join(m.work, "*"))
			must(t, err)
			if len(left) > 0 {
				t.Errorf("left in the work directory: %q", left)
			}
			m.soundLinks()
		}
	})
}

// churn works in the union until that fails, and gives the names of what was synced.
func (m *mounted) churn(round int) (synced []string) {
	for i := range 1000 {
		name := fmt.Sprintf("r%d-%d", round, i)
		f, err := os.OpenFile(m.at(name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		if err != nil {
			return synced
		}
		_, err = f.WriteString(strings.Repeat(name, 1000))
		if err == nil && i%3 == 0 {
			err = f.Sync()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return synced
		}
		if i%3 == 0 {
			synced = append(synced, name)
		}
		_ = os.Chmod(m.at("linked"), os.FileMode(0o600+i%64))
		_ = os.Remove(m.at(fmt.Sprintf("many/%03d", round*30+i%30)))
		_ = os.Mkdir(m.at(fmt.Sprintf("dir/d%d", i)), 0o755)
		if i%6 == 1 {
			_ = os.Rename(m.at(fmt.Sprintf("r%d-%d", round, i)), m.at(fmt.Sprintf("dir/x%d", i)))
		}
		_ = os.WriteFile(m.at("file"), []byte(name), 0o644)
	}
	return synced
}

// soundLinks checks that the three names of a file are one file.
func (m *mounted) soundLinks() {
	m.tb.Helper()
	var st [3]unix.Stat_t
	for i, name := range []string{"linked", "linked2", "dir/linked3"} {
		must(m.tb, unix.Lstat(m.at(name), &st[i]))
	}
	if st[0].Ino != st[1].Ino || st[0].Ino != st[2].Ino || st[0].Nlink != 3 {
		m.tb.Errorf("linked files: %v links, inodes %d %d %d", st[0].Nlink, st[0].Ino, st[1].Ino, st[2].Ino)
	}
}

// TestUnfinishedLinks has a server killed between two names of a file.
func TestUnfinishedLinks(t *testing.T) {
	needRoot(t)
	lower := t.TempDir()
	prepareOps(t, lower)
	m := newUnion(t, lower, Options{})
	must(t, os.WriteFile(m.at("linked"), []byte("new content"), 0))
	var st unix.Stat_t
	must(t, unix.Lstat(m.at("linked"), &st))
	m.unmount()
	must(t, os.Link(filepath.Join(m.upper, "linked"), filepath.Join(m.work, fmt.Sprintf("%s%d", linkPrefix, st.Ino))))
	must(t, os.Remove(filepath.Join(m.upper, "linked2")))
	m.mount()
	m.soundLinks()
	b, err := os.ReadFile(m.at("linked2"))
	if string(b) != "new content" {
		t.Errorf("second name: %q %v", b, err)
	}
}
