package union

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// A job is what the test binary does instead of testing, if PLASH_UNION_SERVE has it,
// in lines: the store, the upper and work directories, where to mount, a word for
// each option, and the layers.
var stopProfile = func() {}

func serveForTest() {
	defer func() { stopProfile() }()
	if err := serveJob(strings.Split(os.Getenv("PLASH_UNION_SERVE"), "\n")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveJob(job []string) error {
	s, err := cas.Open(job[0])
	if err != nil {
		return err
	}
	var layers []digest.Digest
	for _, l := range job[5:] {
		layers = append(layers, digest.Digest(l))
	}
	view, err := s.View(context.Background(), layers)
	if err != nil {
		return err
	}
	u, err := New(view, Options{
		Upper: job[1], Work: job[2], Volatile: strings.Contains(job[4], "volatile"),
		Writeback: strings.Contains(job[4], "writeback"), XattrMarks: strings.Contains(job[4], "xattr"),
	})
	if err != nil {
		return err
	}
	opts := &fuse.MountOptions{AllowOther: true, DirectMountStrict: true, DirectMountFlags: unix.MS_MGC_VAL}
	opts.Debug = strings.Contains(job[4], "debug")
	u.Configure(opts)
	server, err := fuse.NewServer(u, job[3], opts)
	if err != nil {
		return err
	}
	go func() {
		if server.WaitMount() == nil {
			fmt.Println("mounted")
		}
	}()
	server.Serve()
	return errors.Join(u.Close(), view.Close())
}

// serveApart serves the union in a process of its own, which can be killed.
func (m *mounted) serveApart(opts string) *exec.Cmd {
	m.tb.Helper()
	m.unmount()
	job := []string{m.store.Dir(), m.upper, m.work, m.dir, opts}
	for _, l := range m.layers {
		job = append(job, l.String())
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PLASH_UNION_SERVE="+strings.Join(job, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(m.tb, err)
	must(m.tb, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		m.tb.Fatalf("serve: %q %v", line, err)
	}
	return cmd
}

// TestKill kills the server while files are written, copied up and removed. What was
// synced is there afterwards, and the upper directory can be gone on with.
func TestKill(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		prepareOps(t, lower)
		m := newUnion(t, lower, o)
		opts := ""
		if o.Writeback {
			opts += "writeback "
		}
		if o.XattrMarks {
			opts += "xattr "
		}
		for round := range 5 {
			cmd := m.serveApart(opts)
			synced := make(chan []string)
			go func() { synced <- m.churn(round) }()
			time.Sleep(time.Duration(20+30*round) * time.Millisecond)
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
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
