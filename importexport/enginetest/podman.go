package enginetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Podman is storage of containers. The programs of its family that share it are [Podman.Command] and
// [Podman.Buildah].
type Podman struct {
	dir    string
	cgroup string
	server *server // nil: does not serve
}

// NewPodman makes storage in a directory, which it makes. The name of the directory is short:
// Podman takes no longer one than of 50 bytes for what is in it.
func NewPodman(dir string) (*Podman, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &Podman{dir: dir, cgroup: groupFor(dir)}, nil
}

func (p *Podman) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Podman) storage() []string {
	return []string{"--root=" + p.path("root"), "--runroot=" + p.path("run"), "--storage-driver=overlay"}
}

// Command is one of podman.
func (p *Podman) Command(args ...string) *exec.Cmd {
	all := append(p.storage(), "--tmpdir="+p.path("tmp"), "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file")
	return p.program("podman", append(all, args...))
}

// Run is a command of podman that runs a container, which has no network. What root may have of
// resources is left as it is.
func (p *Podman) Run(args ...string) *exec.Cmd {
	return p.Command(append([]string{
		"run", "--rm", "--network=none", "--cgroup-parent=/" + p.cgroup, "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
	}, args...)...)
}

// Buildah is a command of buildah.
func (p *Podman) Buildah(args ...string) *exec.Cmd {
	return p.program("buildah", append(p.storage(), args...))
}

func (p *Podman) program(name string, args []string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	// Big files of theirs go to /var/tmp else.
	cmd.Env = append(os.Environ(), "TMPDIR="+p.dir)
	cmd.SysProcAttr = endWithTest()
	return cmd
}

// Serve starts the service that speaks as Docker does, and returns its address as DOCKER_HOST
// has it.
func (p *Podman) Serve() (host string, err error) {
	socket := p.path("socket")
	p.server, err = serve(p.path("log"), p.Command("system", "service", "--time=0", "unix://"+socket))
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	err = p.server.await(func() error {
		resp, err := client.Get("http://podman/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("Podman: %w", err), p.server.stop())
	}
	return "unix://" + socket, nil
}

// Stop ends the service, if it runs, waits for what cleans up after containers, and unmounts
// what is left mounted.
func (p *Podman) Stop() error {
	var err error
	if p.server != nil {
		err = p.server.stop()
	}
	for deadline := time.Now().Add(patience); len(p.processes()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			err = errors.Join(err, fmt.Errorf("left running: %q", p.processes()))
			break
		}
	}
	for _, name := range []string{"root/overlay", "run/overlay-containers"} {
		e := unix.Unmount(p.path(name), unix.MNT_DETACH)
		if e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", p.path(name), e))
		}
	}
	return errors.Join(err, removeGroups(p.cgroup))
}

// processes are the command lines of those that use the storage.
func (p *Podman) processes() (found []string) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, name := range names {
		b, _ := os.ReadFile(name) // it may be gone
		if strings.Contains(string(b), p.path("run")) {
			found = append(found, strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")))
		}
	}
	return found
}
