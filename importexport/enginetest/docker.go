// Package enginetest starts engines of containers for tests, and for benchmarks: Docker and Podman
// as Debian has them, with directories and sockets of their own.
//
// They have no network but the machine's, and touch none of its settings. Whoever starts one stops it;
// then nothing of it runs or is mounted. Both need root.
package enginetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an engine may take to answer for the first time, and to end.
const patience = time.Minute

// A Docker is a Docker engine.
type Docker struct {
	dir    string
	cgroup string
	*server
}

// StartDocker starts an engine in a directory, which it makes. The name of the directory is short,
// for sockets.
func StartDocker(dir string) (*Docker, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Docker{dir: dir, cgroup: groupFor(dir)}
	var err error
	d.server, err = serve(d.path("log"), exec.Command("dockerd", "--storage-driver=overlay2", "--bridge=none", "--iptables=false",
		"--ip6tables=false", "--ip-forward=false", "--cgroup-parent=/"+d.cgroup, "--data-root="+d.path("data"),
		"--exec-root="+d.path("exec"), "--pidfile="+d.path("pid"), "--host="+d.Host()))
	if err != nil {
		return nil, err
	}
	if err := d.await(func() error { return d.Command("version").Run() }); err != nil {
		return nil, errors.Join(fmt.Errorf("Docker: %w", err), d.Stop())
	}
	return d, nil
}

func (d *Docker) path(name string) string { return filepath.Join(d.dir, name) }

// Host is the engine's address, as DOCKER_HOST has it.
func (d *Docker) Host() string { return "unix://" + d.path("socket") }

// Command is one of the client.
func (d *Docker) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", append([]string{"--host", d.Host()}, args...)...)
	cmd.SysProcAttr = endWithTest()
	return cmd
}

// Stop ends the engine with all containers.
func (d *Docker) Stop() error {
	err := d.stop()
	// The engine leaves its network namespaces mounted, and the group of its containers.
	names, globErr := filepath.Glob(d.path("exec/netns/*"))
	err = errors.Join(err, globErr)
	for _, name := range names {
		if e := unix.Unmount(name, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", name, e))
		}
	}
	return errors.Join(err, removeGroups(d.cgroup))
}

// endWithTest ends a process that a test has started if the test is killed.
func endWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
