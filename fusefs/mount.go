package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd"
)

// A Mount is a mount that is attached nowhere, until AttachTo. Its descriptor is -1 before
// that where there can be no detached mount (before Linux 5.2, or by fusermount3).
type Mount struct {
	mountfd.Mount
	device int     // the FUSE device, until the server has it; or -1
	server *server // that waits for the device, or nil
	// handles says that the kernel makes file handles of what it shows.
	handles bool
	recipe  *recipe // nil if it cannot be recorded
}

// force makes tests take the ways of older kernels, of plain users, and of plans.
var force struct {
	mount2  bool // mount(2) only (before Linux 5.2)
	helper  bool // no right to mount
	awaited bool // a server of a run's beginning
}

// Open mounts the tree that layers (bottom first) make up, by a server process that
// ends with the mount: read-only, unless the options name an upper directory. The caller closes the mount, also after AttachTo. The error
// wraps [ErrUnsupported] if FUSE does not work here.
//
// Where only fusermount3 can mount, or only mount(2), AttachTo makes the mount;
// the context is for that too.
func Open(ctx context.Context, store *cas.Store, layers []digest.Digest, o Options) (*Mount, error) {
	m := &Mount{device: -1}
	if err := m.open(ctx, store, layers, o); err != nil {
		return nil, errors.Join(fmt.Errorf("mount container with FUSE: %w", err), m.Close())
	}
	return m, nil
}

func (m *Mount) open(ctx context.Context, store *cas.Store, layers []digest.Digest, o Options) error {
	var err error
	if m.device, err = openDevice(); err != nil {
		return err
	}
	made := &recipe{store: store, config: newConfig(store, layers, &o)}
	fd, err := mountDetached(m.device, &o, made)
	switch {
	case err == nil:
		m.Mount = mountfd.Of(fd)
		if o.Upper == "" {
			m.recipe = made
		}
	case errors.Is(err, unix.ENOSYS):
		m.Mount = mountfd.Later(func(dir string) error { return m.attachDirect(ctx, dir, &o) })
	case errors.Is(err, unix.EPERM):
		if err := findHelper(err); err != nil {
			return err
		}
		m.Mount = mountfd.Later(func(dir string) error { return m.attachByHelper(ctx, dir, &o) })
	default:
		return classify(err)
	}
	if m.server, err = startServer(&made.config, &o); err != nil {
		return err
	}
	if m.FD() < 0 {
		return nil
	}
	return m.serve(ctx)
}

// serve hands the device over and waits until the mount answers.
func (m *Mount) serve(ctx context.Context) error {
	err := m.server.send(m.device)
	if err == nil {
		err = m.answered(ctx)
	}
	return errors.Join(err, m.release())
}

// answered waits until the mount answers.
func (m *Mount) answered(ctx context.Context) error {
	status, err := m.server.wait(ctx)
	m.handles = status.Handles
	return err
}

// release closes what is of no use once the mount answers, or never will.
func (m *Mount) release() error {
	var err error
	if m.device >= 0 {
		err = unix.Close(m.device)
		m.device = -1
	}
	if m.server != nil {
		err = errors.Join(err, m.server.close())
		m.server = nil
	}
	return err
}

// Handles tells whether the mount answers and has file handles, which the kernel does
// not let a filesystem refuse before Linux 6.8. They find files without their names, and
// then FUSE does not say that these are still right: ESTALE to overlayfs.
func (m *Mount) Handles() bool { return m.handles }

// Close gives the descriptor back, and with it the mount unless it was attached.
func (m *Mount) Close() error { return errors.Join(m.release(), m.Mount.Close()) }

// attachDirect mounts with mount(2), for kernels before Linux 5.2.
func (m *Mount) attachDirect(ctx context.Context, dir string, o *Options) error {
	data := "fd=" + strconv.Itoa(m.device)
	for _, kv := range superOptions() {
		data += "," + kv[0]
		if kv[1] != "" {
			data += "=" + kv[1]
		}
	}
	var flags uintptr
	if o.Upper == "" {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount(o.Source, dir, fsType+"."+subtype, flags, data); err != nil {
		return classify(fmt.Errorf("mount FUSE at %s: %w", dir, err))
	}
	if err := m.serve(ctx); err != nil {
		return errors.Join(fmt.Errorf("mount FUSE at %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// superOptions are the options of a FUSE filesystem that the kernel takes at mount,
// besides its device: Documentation/filesystems/fuse of Linux.
func superOptions() [][2]string {
	return [][2]string{
		{"rootmode", "40000"},
		{"user_id", strconv.Itoa(os.Geteuid())},
		{"group_id", strconv.Itoa(os.Getegid())},
		{"max_read", strconv.Itoa(maxRequest)},
		{"default_permissions", ""},
		{"allow_other", ""},
	}
}

// mountDetached gives a detached mount (fsopen(2), since Linux 5.2) of the filesystem
// that is served at the device. Made is told how.
func mountDetached(device int, o *Options, made *recipe) (int, error) {
	switch {
	case force.mount2:
		return -1, unix.ENOSYS
	case force.helper:
		return -1, unix.EPERM
	}
	c, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fsType, err)
	}
	defer unix.Close(c)
	made.options = append(superOptions(), [2]string{"subtype", subtype})
	if o.Upper == "" {
		made.options = append(made.options, [2]string{"ro", ""})
		made.attrs = unix.MOUNT_ATTR_RDONLY
	}
	if o.Source != "" {
		made.options = append(made.options, [2]string{"source", o.Source})
	}
	for _, kv := range append(made.options, [2]string{"fd", strconv.Itoa(device)}) {
		if kv[1] == "" {
			err = unix.FsconfigSetFlag(c, kv[0])
		} else {
			err = unix.FsconfigSetString(c, kv[0], kv[1])
		}
		if err != nil {
			return -1, fmt.Errorf("mount FUSE: option %s=%s: %w", kv[0], kv[1], err)
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return -1, fmt.Errorf("mount FUSE: %w", err)
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, made.attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount FUSE: %w", err)
	}
	return fd, nil
}
