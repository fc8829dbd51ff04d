package overlay

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// unsupportedErrnos are what the kernel says when it lacks a filesystem or a
// feature of it, or does not let this process use it.
var unsupportedErrnos = []error{
	unix.ENODEV,     // no such filesystem
	unix.ENOSYS,     // no such system call
	unix.EINVAL,     // unknown option or feature
	unix.EPERM,      // no right to mount
	unix.EACCES,     // a security module said no
	unix.EOPNOTSUPP, // the filesystem below lacks something
	unix.ENOTBLK,    // EROFS on plain files, before Linux 6.12
}

// classify adds ErrUnsupported to errors of mounting that mean it.
func classify(err error) error {
	for _, e := range unsupportedErrnos {
		if errors.Is(err, e) && !errors.Is(err, ErrUnsupported) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}

// maxString is the longest string that fsconfig(2) takes.
const maxString = 255

// An fsContext is a filesystem being configured: fsopen(2), since Linux 5.2.
// After the first error every method does nothing, and mount tells the error.
type fsContext struct {
	fd  int
	err error
}

func newFSContext(fstype string) *fsContext {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return &fsContext{fd: -1, err: fmt.Errorf("fsopen %s: %w", fstype, err)}
	}
	return &fsContext{fd: fd}
}

func (c *fsContext) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

func (c *fsContext) setString(key, value string) {
	if c.err == nil {
		c.check(unix.FsconfigSetString(c.fd, key, value), "option "+key+"="+value)
	}
}

func (c *fsContext) setFlag(key string) {
	if c.err == nil {
		c.check(unix.FsconfigSetFlag(c.fd, key), "option "+key)
	}
}

func (c *fsContext) setFD(key string, fd int) {
	if c.err == nil {
		c.check(unix.FsconfigSetFd(c.fd, key, fd), "option "+key)
	}
}

// mount creates the filesystem and gives a detached mount of it. The context is
// closed.
func (c *fsContext) mount(attrs int) (int, error) {
	defer c.close()
	if c.err == nil {
		c.check(unix.FsconfigCreate(c.fd), "create filesystem")
	}
	if c.err != nil {
		return -1, c.err
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attrs)
	c.check(err, "fsmount")
	if c.err != nil {
		return -1, c.err
	}
	return fd, nil
}

// check records an error together with what the kernel has to say about it.
func (c *fsContext) check(err error, what string) {
	if err == nil {
		return
	}
	if msg := c.messages(); msg != "" {
		what += ": " + msg
	}
	c.err = fmt.Errorf("%s: %w", what, err)
}

// messages reads the kernel's messages: each read(2) of the context gives one,
// as "e erofs: what is wrong" (include/linux/fs_context.h, Linux 5.2).
func (c *fsContext) messages() string {
	var all []string
	var buf [1024]byte
	for len(all) < 8 {
		n, err := unix.Read(c.fd, buf[:])
		if err != nil || n <= 0 {
			break
		}
		msg := strings.TrimSpace(string(buf[:n]))
		if level, text, ok := strings.Cut(msg, " "); ok && len(level) == 1 {
			msg = text
		}
		all = append(all, msg)
	}
	return strings.Join(all, "; ")
}
