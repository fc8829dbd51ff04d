package hosttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// arrange makes what the host looks like, in a mount namespace of its own.
func (h Host) arrange() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	if h.OwnProcesses {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if err := unifyCgroups(); err != nil {
		return err
	}
	if h.NoFUSE {
		if err := hideDevice("fuse"); err != nil {
			return fmt.Errorf("hide /dev/fuse: %w", err)
		}
	}
	for _, path := range h.Missing {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		// Not to be executed, so a search of PATH goes on.
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// unifyCgroups has cgroups as most machines have them, for programs that want to know.
func unifyCgroups() error {
	const root = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %w", err)
	}
	return nil
}

// hideDevice puts a directory over /dev that has everything but one device.
func hideDevice(hidden string) error {
	dev, err := os.Open("/dev")
	if err != nil {
		return err
	}
	defer dev.Close()
	entries, err := dev.ReadDir(-1)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == hidden {
			continue
		}
		from := fmt.Sprintf("/proc/self/fd/%d/%s", dev.Fd(), e.Name())
		to := filepath.Join("/dev", e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(target, to)
			}
			if err != nil {
				return err
			}
			continue
		}
		if e.IsDir() {
			err = os.Mkdir(to, 0o755)
		} else {
			err = os.WriteFile(to, nil, 0o600)
		}
		if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
