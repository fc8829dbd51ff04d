package matrix

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

const prootPath = "/usr/bin/proot"

// A kind is a kind of host.
type kind interface {
	// user is who owns the room: a plain user of this machine, or "" for root.
	user() string
	// prepare makes in the room what the host needs.
	prepare(t *testing.T, r *room) error
	// command is a shell script of the house on the host; with own processes, nothing that it
	// starts outlives it.
	command(r *room, script string, own bool) (*exec.Cmd, error)
}

// A machine is the machine itself, without something.
type machine struct{ hosttest.Host }

func (k machine) user() string                    { return k.User }
func (k machine) prepare(*testing.T, *room) error { return nil }

func (k machine) command(r *room, script string, own bool) (*exec.Cmd, error) {
	k.OwnProcesses = k.OwnProcesses || own
	return r.on(k.Host, "sh", r.path(script))
}

// on is a command on the machine without something.
func (r *room) on(h hosttest.Host, argv ...string) (*exec.Cmd, error) {
	cmd, err := h.Command(argv[0], argv[1:]...)
	if err != nil {
		return nil, err
	}
	cmd.Env, cmd.Dir = r.environ(), r.dir
	return cmd, nil
}

// A dockerRun is a container of Docker, whose store is in the container.
type dockerRun struct {
	options []string
	as      string // "": root
	noProot bool
}

func (k dockerRun) user() string { return k.as }

func (k dockerRun) prepare(_ *testing.T, r *room) error {
	r.env["PLASH_DATA"] = "/tmp/store"
	return nil
}

func (k dockerRun) command(r *room, script string, _ bool) (*exec.Cmd, error) {
	d, err := r.docker()
	if err != nil {
		return nil, err
	}
	args := append([]string{"run", "--rm", "--interactive", "--network=host"}, k.options...)
	if k.as != "" {
		ids, err := hosttest.IDs(k.as)
		if err != nil {
			return nil, err
		}
		args = append(args, "--user="+ids)
	}
	if k.noProot {
		args = append(args, "--volume=/dev/null:"+prootPath)
	}
	args = append(args, r.containerArgs()...)
	cmd := d.Command(append(args, dockerImage, "sh", r.path(script))...)
	cmd.Env, cmd.Dir = r.environ(), r.dir
	return cmd, nil
}

// containerArgs are options for `docker run`, and that of Podman, which give a container the house
// and the environment of the room.
func (r *room) containerArgs() []string {
	args := []string{"--workdir=" + r.dir, "--volume=" + r.house.dir + ":" + r.house.dir}
	for name := range r.env {
		args = append(args, "--env="+name)
	}
	slices.Sort(args)
	return args
}

// A podmanRun is a container of Podman, by a user who has subordinate ids.
type podmanRun struct{ as string }

func (k podmanRun) user() string { return k.as }

func (k podmanRun) prepare(_ *testing.T, r *room) error {
	root := filepath.Join(r.dir, "root")
	cmd, err := r.on(hosttest.Host{User: k.as}, "sh", "-c",
		"mkdir root run && chmod 700 run && tar -x -C root --exclude './dev/*' -f "+r.path(peersFile))
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack into %s: %w: %s", root, err, out)
	}
	r.env["PLASH_DATA"] = "/var/lib/plash"
	r.env["XDG_RUNTIME_DIR"] = filepath.Join(r.dir, "run")
	return nil
}

func (k podmanRun) command(r *room, script string, _ bool) (*exec.Cmd, error) {
	argv := []string{
		"podman", "--root=" + filepath.Join(r.dir, "storage"), "--tmpdir=" + filepath.Join(r.dir, "run/libpod"),
		"--runtime=crun", "--cgroup-manager=cgroupfs", "--events-backend=file",
		"run", "--rm", "--interactive", "--network=host", "--cgroups=disabled",
	}
	argv = append(argv, r.containerArgs()...)
	argv = append(argv, "--rootfs", filepath.Join(r.dir, "root"), "sh", r.path(script))
	// Podman leaves a process that waits for the next one.
	return r.on(hosttest.Host{User: k.as, OwnProcesses: true}, argv...)
}

// A plashRun is a run of plash.
type plashRun struct{ as string }

func (k plashRun) user() string { return k.as }

func (k plashRun) prepare(t *testing.T, r *room) error {
	t.Cleanup(func() {
		if err := k.outer(r, "purge", "--yes"); err != nil {
			t.Error(err)
		}
	})
	if k.as == "" {
		r.env["PLASH_DATA"] = "/var/lib/plash"
	}
	return k.outer(r, "import-tar", r.path(peersFile))
}

// outer runs the plash in which the other one runs.
func (k plashRun) outer(r *room, args ...string) error {
	cmd, err := r.on(hosttest.Host{User: k.as}, append([]string{"env", "PLASH_DATA=" + filepath.Join(r.dir, "outer"), r.program}, args...)...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("plash %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (k plashRun) command(r *room, script string, own bool) (*exec.Cmd, error) {
	return r.on(hosttest.Host{User: k.as, OwnProcesses: own},
		"env", "PLASH_DATA="+filepath.Join(r.dir, "outer"), r.program, "run", "1",
		"env", "PLASH_DATA="+r.env["PLASH_DATA"], "sh", r.path(script))
}
