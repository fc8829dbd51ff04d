package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mounted is a tree that a contender shows at a directory.
type mounted struct {
	dir     string
	servers []int // processes that serve it
	undo    undos
}

// away takes it away, with its servers.
func (m *mounted) away() error { return m.undo.run() }

// A mounter shows the image somewhere. Upper and work directories are made by it and
// removed by the mount's undo.
type mounter func() (*mounted, error)

// patience is how long a mount may take to come or a server to go.
const patience = 10 * time.Second

// inPlace shows a directory as it is.
func inPlace(dir string) mounter {
	return func() (*mounted, error) { return &mounted{dir: dir}, nil }
}

// newMount makes the directories of a mount: where it is, and an upper and a work
// directory if it is to be written to.
func (b *bench) newMount(writable bool) (m *mounted, upper, work string, err error) {
	base, err := os.MkdirTemp(b.dir, "mount-")
	if err != nil {
		return nil, "", "", err
	}
	m = &mounted{dir: filepath.Join(base, "root")}
	m.undo.add(func() error {
		// Where the mount could not be taken away, nothing must be removed in it.
		if isMountPoint(m.dir) {
			return fmt.Errorf("%s is still mounted", m.dir)
		}
		return os.RemoveAll(base)
	})
	upper, work = filepath.Join(base, "upper"), filepath.Join(base, "work")
	dirs := []string{m.dir}
	if writable {
		dirs = append(dirs, upper, work)
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, "", "", errors.Join(err, m.undo.run())
		}
	}
	return m, upper, work, nil
}

// kernel mounts by mount(8); the words UPPER, WORK and DIR in its arguments stand for
// directories.
func (b *bench) kernel(args ...string) mounter {
	return func() (*mounted, error) {
		writable := strings.Contains(strings.Join(args, " "), "UPPER")
		m, upper, work, err := b.newMount(writable)
		if err != nil {
			return nil, err
		}
		if err := b.command(nil, "mount", places(args, upper, work, m.dir)...); err != nil {
			return nil, errors.Join(err, m.away())
		}
		m.undo.add(func() error { return unmount(m.dir) })
		return m, nil
	}
}

func places(args []string, upper, work, dir string) (out []string) {
	r := strings.NewReplacer("UPPER", upper, "WORK", work, "DIR", dir)
	for _, arg := range args {
		out = append(out, r.Replace(arg))
	}
	return out
}

// fuse mounts by a FUSE server that stays in the foreground; the words are as for kernel.
func (b *bench) fuse(name string, args ...string) mounter {
	return func() (*mounted, error) {
		writable := strings.Contains(strings.Join(args, " "), "UPPER")
		m, upper, work, err := b.newMount(writable)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(name, places(args, upper, work, m.dir)...)
		ended := make(chan error, 1)
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(err, m.away())
		}
		go func() { ended <- cmd.Wait() }()
		m.servers = []int{cmd.Process.Pid}
		m.undo.add(func() error {
			err := unmount(m.dir)
			select {
			case <-ended:
				return err
			case <-time.After(patience):
				return errors.Join(err, fmt.Errorf("%s: still runs after the unmount", name), cmd.Process.Kill())
			}
		})
		for deadline := time.Now().Add(patience); !isMountPoint(m.dir); time.Sleep(time.Millisecond) {
			select {
			case err := <-ended:
				ended <- nil
				return nil, errors.Join(fmt.Errorf("%s: ended without a mount: %w", name, err), m.away())
			default:
			}
			if time.Now().After(deadline) {
				return nil, errors.Join(fmt.Errorf("%s: no mount", name), cmd.Process.Kill(), m.away())
			}
		}
		return m, nil
	}
}

// ours mounts by plash with a backend.
func (b *bench) ours(store, id, backend string, writable bool) mounter {
	return func() (*mounted, error) {
		m, upper, work, err := b.newMount(writable)
		if err != nil {
			return nil, err
		}
		args := []string{"mount"}
		if writable {
			args = append(args, "--upperdir", upper, "--workdir", work)
		}
		m.undo.add(b.serversGone)
		if err := b.command([]string{"PLASH_DATA=" + store, "PLASH_BACKEND=" + backend}, b.plash, append(args, id, m.dir)...); err != nil {
			return nil, errors.Join(err, m.away())
		}
		m.undo.add(func() error { return unmount(m.dir) })
		m.servers = processesOf(b.plash)
		return m, nil
	}
}

// serversGone waits for the servers of plash to end, whose mount is away.
func (b *bench) serversGone() error {
	deadline := time.Now().Add(patience)
	for {
		left := processesOf(b.plash)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			err := fmt.Errorf("plash: processes %v still run after the unmount", left)
			for _, pid := range left {
				err = errors.Join(err, unix.Kill(pid, unix.SIGKILL))
			}
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// isMountPoint tells whether something is mounted at a directory. A FUSE server that is
// not ready yet lets the question wait.
func isMountPoint(dir string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	// A server that has died leaves its mount behind.
	return errors.Is(err, unix.ENOTCONN) || err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// unmount takes away what is mounted at a directory. What a process that just ended
// had open in it may still be on its way to be closed.
func unmount(dir string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) && !isMountPoint(dir) {
			return nil
		}
		if errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("unmount %s: %w", dir, err)
			return errors.Join(err, unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH))
		}
		return nil
	}
}
