package union

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd/leftover"
)

// serveEnv has what the test binary serves, instead of testing.
const serveEnv = "PLASH_UNION_SERVE"

// A job is a union to be served.
type job struct {
	Store, Dir string
	Layers     []digest.Digest
	Options    Options
	Files      uint64 // how many files the server may have open
}

func serveForTest() {
	var j job
	err := json.Unmarshal([]byte(os.Getenv(serveEnv)), &j)
	if err == nil {
		err = j.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (j *job) serve() error {
	if j.Files > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: j.Files, Max: j.Files}); err != nil {
			return err
		}
	}
	s, err := cas.Open(j.Store)
	if err != nil {
		return err
	}
	before := leftover.Descriptors()
	view, err := s.View(context.Background(), j.Layers)
	if err != nil {
		return err
	}
	u, err := New(view, j.Options)
	if err != nil {
		return errors.Join(err, view.Close())
	}
	opts := &fuse.MountOptions{AllowOther: true, DirectMountStrict: os.Geteuid() == 0, DirectMountFlags: unix.MS_MGC_VAL}
	u.Configure(opts)
	server, err := fuse.NewServer(u, j.Dir, opts)
	if err != nil {
		return errors.Join(err, u.Close(), view.Close())
	}
	waited := make(chan error)
	go func() {
		err := server.WaitMount()
		fmt.Println("mounted")
		waited <- err
	}()
	counts := make(chan os.Signal, 1)
	signal.Notify(counts, unix.SIGUSR1)
	defer signal.Stop(counts)
	go func() {
		for range counts {
			u.tab.Lock()
			fmt.Println(len(u.byID), u.kept)
			u.tab.Unlock()
		}
	}()
	server.Serve()
	if err := errors.Join(<-waited, u.Close(), view.Close()); err != nil {
		return err
	}
	if left := leftover.New(before, leftover.Descriptors()); left != "" && os.Geteuid() == 0 {
		return fmt.Errorf("left over:\n%s", left)
	}
	return nil
}

// mount has the union served by a process of its own.
func (m *mounted) mount() {
	m.tb.Helper()
	j := job{m.store.Dir(), m.dir, m.layers, m.o, m.files}
	j.Options.Upper, j.Options.Work = m.upper, m.work
	cmd := exec.Command("/proc/self/exe")
	if m.user != 0 {
		j.Dir = "/dev/fd/3" // mounted for it, as it may not mount
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		must(m.tb, err)
		defer dev.Close()
		must(m.tb, unix.Mount("plash", m.dir, "fuse.plash", 0, fmt.Sprintf(
			"fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,allow_other,max_read=%d",
			dev.Fd(), m.user, m.user, 1<<20)))
		cmd.ExtraFiles = []*os.File{dev}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(m.user), Gid: uint32(m.user)}}
	}
	env, err := json.Marshal(j)
	must(m.tb, err)
	// Under the race detector a process ends a second later, unless it is told not to.
	cmd.Env = append(os.Environ(), serveEnv+"="+string(env), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(m.tb, err)
	must(m.tb, cmd.Start())
	m.out = bufio.NewReader(out)
	line, err := m.out.ReadString('\n')
	if err != nil {
		m.tb.Fatalf("serve: %q %v", line, err)
	}
	m.server = cmd
}
