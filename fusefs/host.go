package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const devicePath = "/dev/fuse"

// openDevice opens the FUSE device, and says what is wrong with it if that fails.
func openDevice() (int, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return fd, nil
	}
	err = &os.PathError{Op: "open", Path: devicePath, Err: err}
	hint := ""
	fi, statErr := os.Stat(devicePath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": load the module with `modprobe fuse`; a container needs the device from its host (docker run --device /dev/fuse)"
	case errors.Is(err, unix.EPERM):
		hint = ": the container that this is may not use the device (docker run --device /dev/fuse)"
	case errors.Is(err, unix.EACCES) && statErr == nil:
		hint = fmt.Sprintf(": its mode is %04o; `chmod 666 %s` lets everyone use it", fi.Mode().Perm(), devicePath)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		hint = ": the kernel has no FUSE: load the module with `modprobe fuse`"
	default:
		return -1, err
	}
	return -1, fmt.Errorf("%w: %w%s", ErrUnsupported, err, hint)
}

// unsupportedErrnos are what the kernel says when it lacks FUSE or a feature of it, or
// does not let this process use it.
var unsupportedErrnos = []error{
	unix.ENODEV, // no such filesystem
	unix.ENOSYS, // no such system call
	unix.EINVAL, // unknown option; a device that was opened in another user namespace
	unix.EPERM,  // no right to mount
	unix.EACCES, // a security module said no
}

// classify adds ErrUnsupported to errors of mounting that mean it.
func classify(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return err
	}
	for _, e := range unsupportedErrnos {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}
