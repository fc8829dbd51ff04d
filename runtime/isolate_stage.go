package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// An isolated container is run by a stage in a mount, a pid and a cgroup namespace, and in a
// user namespace where the caller may not mount. The stage is the init of the pid
// namespace: when it ends, or is killed, or is killed because its parent ended, so are the
// engine and the container. The mounts end with that, and what the engine has written is in them.
type isolated struct {
	Argv   []string
	Mounts []string
	Engine bundle.Engine

	single    bool   // there is one user
	dir       string // a tmpfs
	root      rootMount
	binds     []share.Bind
	container bundle.Container
}

// run runs the container. The error is nil, a [CommandError], an [program.ExitError], or says what
// went wrong before there was a command. Told tells of signals.
func (c *isolated) run(ctx context.Context, st *container.Store, id container.ID, told *json.Decoder) (err error) {
	c.container = bundle.Container{Name: fmt.Sprintf("plash-%d", id), UserNamespace: inUserNamespace(), Term: os.Getenv("TERM")}
	c.single = staged != nil && staged.Single
	if err := c.share(); err != nil {
		return err
	}
	if err := makeSlave(); err != nil {
		return err
	}
	if err := withImage(ctx, st, id, func(im *image) error { return c.mount(ctx, im) }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.root.Close()) }()
	if err := c.choose(c.root.FD()); err != nil {
		return err
	}
	if err := insideRoot(c.root.FD(), c.find); err != nil {
		return err
	}
	c.container.Terminal = onTerminal()
	if err := c.write(c.bundleDir()); err != nil {
		return err
	}
	if err := c.mountKernel(); err != nil {
		return err
	}
	return c.supervise(told)
}

// bundleDir is where the bundle is made.
func (c *isolated) bundleDir() string { return filepath.Join(c.dir, "bundle") }

// mount makes the root of the container, with an upper directory in memory.
func (c *isolated) mount(ctx context.Context, im *image) (err error) {
	c.container.Image = im.config
	im.log = logFor(im.log)
	if c.dir, err = mountMemory(im.cas); err != nil {
		return err
	}
	root := filepath.Join(c.bundleDir(), bundle.RootDir)
	for _, dir := range []string{c.bundleDir(), root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	upper, work := filepath.Join(c.dir, "u"), filepath.Join(c.dir, "w")
	if err := makeUpper(ctx, im, upper, work); err != nil {
		return err
	}
	if c.root, err = im.open(ctx, overlay.Options{Upper: upper, Work: work, Volatile: true}); err != nil {
		return err
	}
	err = c.root.AttachTo(root)
	if err == nil {
		err = forbidDevices(root)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mount container: %w", err), c.root.Close())
	}
	if c.Engine.Name == "crun" && !c.container.UserNamespace {
		// It gives the root's mount other flags. The stage is process 1, also to the engine.
		c.container.Prepare = []string{"/proc/1/exe", prepareName, root}
	}
	return nil
}

// forbidDevices has no device opened in a mount: those of an image would be the host's, and
// no control group keeps them from the container.
func forbidDevices(root string) error {
	return unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NODEV, "")
}

// prepareName is the name under which an engine starts the program to forbid devices.
const prepareName = "plash-prepare"

// maybePrepare is MaybeInit for that.
func maybePrepare() {
	if len(os.Args) != 2 || os.Args[0] != prepareName {
		return
	}
	// The engine hands over the container's state, and does not bear that nobody wants it.
	_, err := io.Copy(io.Discard, os.Stdin)
	if err == nil {
		err = forbidDevices(os.Args[1])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "plash: forbid devices: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// mountKernel mounts what tells the engine of processes and control groups.
func (c *isolated) mountKernel() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", "/proc", "proc", flags, ""); err != nil {
		return &hintedError{
			fmt.Errorf("mount /proc for the container: %w", mountDenied(err)),
			"plash-run needs no /proc of its own; a container that is to run others needs an unmasked one",
		}
	}
	// Read-only, so that no groups are made, which nobody would remove if all were killed. The
	// second version is what all engines know.
	const groups = "/sys/fs/cgroup"
	err := unix.Mount("cgroup2", groups, "cgroup2", flags, "")
	if err == nil {
		err = unix.Mount("", groups, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, "")
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount %s for the container: %w", groups, mountDenied(err))
	}
	return nil
}

// share finds out what is shared with the host.
func (c *isolated) share() (err error) {
	if c.Mounts == nil {
		return nil
	}
	c.binds, err = runMounts(c.Mounts, os.Environ())
	return err
}

// choose chooses what to run and as whom. Root is the container's, open.
func (c *isolated) choose(root int) (err error) {
	b := &c.container
	if b.User, err = bundle.LookUp(root, b.Image.User); err != nil {
		return err
	}
	b.Args = bundle.Command(b.Image, c.Argv)
	if len(b.Args) == 0 {
		b.Args = []string{program.ShellIn(root)}
	}
	return c.fitUser()
}

// find looks whether the command is there, in the container's root, and how it is executed:
// the engine says less of that.
func (c *isolated) find() error {
	b := &c.container
	_ = unix.Chdir(b.Dir()) // else the engine makes it, or says why not
	if c.outside(b.Args[0]) {
		return nil
	}
	p, err := program.Find(b.Args, b.Env(), "")
	if err != nil {
		return err
	}
	b.Args, err = p.CommandLine()
	return err
}

// fitUser fits the user into the namespace.
func (c *isolated) fitUser() error {
	if !c.single {
		return nil
	}
	u := &c.container.User
	if u.UID != 0 || u.GID != 0 {
		return &hintedError{
			fmt.Errorf("user %q of the image: there is no user here but root", c.container.Image.User),
			"others take subordinate ids: `plash-doctor` says what is missing",
		}
	}
	u.Groups = nil // nobody may set any
	return nil
}

// outside tells whether a command may be one that the container shares with the host, which
// is not there yet.
func (c *isolated) outside(name string) bool {
	for _, b := range c.binds {
		for _, dir := range program.Dirs(name, c.container.Env()) {
			if b.Covers(filepath.Join(c.container.Dir(), dir)) || b.Covers(filepath.Join("/", dir)) {
				return true
			}
		}
	}
	return false
}

// write writes the bundle into a directory.
func (c *isolated) write(dir string) error {
	for _, b := range c.binds {
		if _, err := os.Stat(b.HostPath()); err != nil {
			continue // optional: [share.Parse] has seen the others
		}
		c.container.Binds = append(c.container.Binds, bundle.Bind{Path: b.Path, Source: b.HostPath()})
	}
	return bundle.Write(dir, c.container)
}

// onTerminal tells whether all standard streams are a terminal's: a container has one for all
// of them, or none.
func onTerminal() bool {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return false
		}
	}
	return true
}

// insideRoot calls f on a thread whose root is the open directory, and that ends with f.
func insideRoot(root int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(root)
		}
		if err == nil {
			err = unix.Chroot(".")
		}
		if err == nil {
			err = unix.Chdir("/")
		}
		if err != nil {
			done <- fmt.Errorf("enter container: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
