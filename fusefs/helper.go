package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// helperNames are the names of the setuid program that mounts for plain users: that of
// libfuse 3, and of libfuse 2.
var helperNames = []string{"fusermount3", "fusermount"}

// helperPath finds that program.
func helperPath() (string, error) {
	for _, name := range helperNames {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		if path, err := exec.LookPath("/bin/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", helperNames[0], exec.ErrNotFound)
}

// findHelper makes sure that there is a way around the error that mounting gave. Root
// gets no more rights by the helper than he has.
func findHelper(cause error) error {
	if os.Geteuid() == 0 && !force.helper {
		return classify(cause)
	}
	if _, err := helperPath(); err != nil {
		return fmt.Errorf("%w: %w, and users need fusermount3 for it: install the package fuse3", ErrUnsupported, cause)
	}
	return nil
}

// attachByHelper has fusermount3 mount. It opens the device itself, and hands it to the
// server by the socket that the server listens to: so nothing is lost if we die.
func (m *Mount) attachByHelper(ctx context.Context, dir string, o *Options) error {
	path, err := helperPath()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	options := []string{"subtype=" + subtype, fmt.Sprint("max_read=", maxRequest)}
	if o.Upper == "" {
		options = append(options, "ro")
	}
	if o.Source != "" {
		options = append(options, "fsname="+strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(o.Source))
	}
	if os.Geteuid() == 0 {
		options = append(options, "default_permissions", "allow_other")
	}
	// A plain user sees all that is in his image, whoever it belongs to in there, as he may
	// read the store; nobody else does.
	// Not the socket itself: its end here is not to become a blocking one.
	var socket int
	if err := m.server.control(func(fd int) (err error) {
		socket, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		return fmt.Errorf("mount FUSE at %s: %w", dir, err)
	}
	commFile := os.NewFile(uintptr(socket), "socket")
	defer commFile.Close()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-o", strings.Join(options, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{commFile}
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		err = fmt.Errorf("mount FUSE at %s: %w: %s", dir, err, bytes.TrimSpace(said.Bytes()))
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err := errors.Join(m.answered(ctx), m.release()); err != nil {
		return errors.Join(fmt.Errorf("mount FUSE at %s: %w", dir, err), unmountByHelper(dir, true))
	}
	return nil
}

// unmountByHelper has fusermount3 take a mount away.
func unmountByHelper(dir string, lazy bool) error {
	path, err := helperPath()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", dir}
	if lazy {
		args = append([]string{"-z"}, args...)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // what it says is looked at
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("resource busy")) {
			return fmt.Errorf("unmount %s: %w", dir, unix.EBUSY)
		}
		return fmt.Errorf("unmount %s: %w: %s", dir, err, bytes.TrimSpace(out))
	}
	return nil
}

// Unmount takes a mount away that AttachTo attached to a directory, also as a plain
// user. If the server has died before, the error wraps [ErrServer], and the mount
// is gone all the same if nothing else is joined to it.
func Unmount(dir string) error {
	dead := Check(dir)
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	byHelper := errors.Is(err, unix.EPERM) && os.Geteuid() != 0
	if byHelper {
		err = unmountByHelper(dir, false)
	}
	if dead != nil && errors.Is(err, unix.EBUSY) {
		// Those who use it can do nothing with it any more.
		if byHelper {
			err = unmountByHelper(dir, true)
		} else {
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
	}
	if err != nil && !byHelper {
		err = fmt.Errorf("unmount %s: %w", dir, err)
	}
	return errors.Join(dead, err)
}

// Check asks the server of the mount at a directory for an answer. The error wraps
// [ErrServer] if there is none.
func Check(dir string) error {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st) // is asked of the server each time
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
		return fmt.Errorf("%s: %w: %w", dir, ErrServer, err)
	}
	return nil
}
