package matrix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dockerImage has the peers, too.
const dockerImage = "plash-matrix"

// A docker is a Docker engine of the test's own, which has no network but the machine's and
// touches none of its settings.
type docker struct {
	dir    string
	cgroup string
	engine *exec.Cmd
	ended  chan error
}

// openDocker gives what starts an engine for the house, once, which ends with the test.
func (h *house) openDocker(t *testing.T) func() (*docker, error) {
	return sync.OnceValues(func() (*docker, error) {
		d, err := startDocker(h.path("docker"), h.path(peersFile))
		if err == nil {
			t.Cleanup(func() {
				if err := d.stop(); err != nil {
					t.Errorf("%v: %s", err, d.said())
				}
			})
		}
		return d, err
	})
}

// startDocker starts an engine in a directory, with an image of a tar.
func startDocker(dir, image string) (_ *docker, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d := &docker{dir: dir, cgroup: fmt.Sprintf("plash-matrix-%d", os.Getpid()), ended: make(chan error, 1)}
	d.engine = exec.Command("dockerd", "--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false",
		"--ip-forward=false", "--cgroup-parent=/"+d.cgroup, "--data-root="+d.path("data"), "--exec-root="+d.path("exec"),
		"--pidfile="+d.path("pid"), "--host="+d.socket())
	d.engine.Stdout, d.engine.Stderr, d.engine.SysProcAttr = log, log, killWithTest()
	if err := d.engine.Start(); err != nil {
		return nil, err
	}
	go func() { d.ended <- d.engine.Wait() }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = d.command("version").Run(); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("Docker does not answer: %w: %s", err, d.said()), d.stop())
		}
	}
	if out, err := d.command("import", image, dockerImage).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("docker import: %w: %s", err, out), d.stop())
	}
	return d, nil
}

func (d *docker) path(name string) string { return filepath.Join(d.dir, name) }
func (d *docker) socket() string          { return "unix://" + d.path("socket") }

// said is the end of what the engine logged.
func (d *docker) said() string {
	b, err := os.ReadFile(d.path("log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// command is one of the client.
func (d *docker) command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", append([]string{"--host", d.socket()}, args...)...)
	cmd.SysProcAttr = killWithTest()
	return cmd
}

// stop ends the engine with all containers.
func (d *docker) stop() error {
	if err := d.engine.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	var err error
	select {
	case err = <-d.ended:
	case <-time.After(30 * time.Second):
		err = errors.Join(errors.New("Docker does not end"), d.engine.Process.Kill(), <-d.ended)
	}
	// The engine leaves its network namespaces mounted, and the group of its containers.
	names, globErr := filepath.Glob(d.path("exec/netns/*"))
	err = errors.Join(err, globErr)
	for _, name := range names {
		if e := unix.Unmount(name, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", name, e))
		}
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		groups, globErr := filepath.Glob(filepath.Join(root, d.cgroup))
		err = errors.Join(err, globErr)
		for _, group := range groups {
			if e := os.Remove(group); e != nil && !errors.Is(e, os.ErrNotExist) { // some are one by two names
				err = errors.Join(err, e)
			}
		}
	}
	return err
}
