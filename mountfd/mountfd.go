// Package mountfd has mounts that are attached nowhere: each is a descriptor, and goes
// with it unless it is attached. Where the kernel has no such mounts (before Linux 5.2),
// or who asks may not make them, one is made when it is attached.
//
// It does not know what is mounted: that is for the packages that make mounts.
package mountfd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Mount is a mount that is attached nowhere, until [Mount.AttachTo]. The zero value is
// none.
type Mount struct {
	fd     int // of the mount, if open
	open   bool
	attach func(dir string) error
}

// Of is the mount that a descriptor is of, which belongs to it from now on.
func Of(fd int) Mount { return Mount{fd: fd, open: true} }

// Later is a mount that attach makes, at the directory that it is to be attached to.
func Later(attach func(dir string) error) Mount { return Mount{attach: attach} }

// FD is an O_PATH descriptor of the mount's root, for *at calls; it belongs to the
// mount. It is -1 as long as the mount is not made, which is before AttachTo where
// there can be no detached one.
func (m *Mount) FD() int {
	if !m.open {
		return -1
	}
	return m.fd
}

// AttachTo attaches the mount at a directory, in the mount namespace of the
// calling thread. It stays there when m is closed; while m is open, umount(2)
// of it says EBUSY.
func (m *Mount) AttachTo(dir string) error {
	if m.attach == nil {
		return m.move(dir)
	}
	// fusermount3 would mount a directory on a file.
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return fmt.Errorf("attach mount to %s: %w", dir, err)
	}
	if err := m.attach(dir); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open mount: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	*m = Of(fd)
	return nil
}

func (m *Mount) move(dir string) error {
	err := unix.MoveMount(m.FD(), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		if fi, statErr := os.Stat(dir); statErr == nil && !fi.IsDir() {
			err = unix.ENOTDIR
		}
	}
	if err != nil {
		return fmt.Errorf("attach mount to %s: %w", dir, err)
	}
	return nil
}

// Close gives the descriptor back, and with it the mount unless it was attached.
func (m *Mount) Close() error {
	if !m.open {
		return nil
	}
	m.open = false
	if err := unix.Close(m.fd); err != nil {
		return fmt.Errorf("close mount: %w", err)
	}
	return nil
}
