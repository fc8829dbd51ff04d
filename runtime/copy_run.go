package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay/copytree"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/proot"
	"github.com/ihucos/plash/runtime/share"
)

// execInCopy is Exec in a copy.
func execInCopy(ctx context.Context, st *container.Store, id container.ID, o RunOptions) error {
	err := copyRun(ctx, st, id, o)
	var end *EndError
	if errors.As(err, &end) {
		return err
	}
	return program.NotStarted(err)
}

func copyRun(ctx context.Context, st *container.Store, id container.ID, o RunOptions) (err error) {
	if o.Upper != "" || o.Work != "" {
		return fmt.Errorf("keep what is written in %s: %w", o.Upper, errNoMounts)
	}
	r := &run{env: os.Environ()}
	r.takeReplayVar()
	if o.DeescalateSudo {
		if r.who, err = ids.SudoCaller(r.env); err != nil {
			return err
		}
		if r.who != nil {
			r.env = r.who.Environ(r.env)
		}
	}
	if r.binds, err = runMounts(o.Mounts, r.env); err != nil {
		return err
	}
	r.dir = workingDir()
	way, err := findWay(st.CAS(), false)
	if err != nil {
		return err
	}
	if way.proot != "" && r.who != nil && ids.HasCapabilities(unix.CAP_SYS_CHROOT) {
		way.proot = "" // a user could not come to the copy
	}
	if way.proot == "" {
		if err := unshared(r.binds, o.Mounts != nil); err != nil {
			return err
		}
	}
	c, config, err := takeCopy(ctx, st, id)
	if err != nil {
		return err
	}
	r.vars = imageVars(config)
	if way.proot != "" {
		g := &proot.Guest{Proot: way.proot, Dir: c.Dir(), Lock: c.Lock(), Binds: r.binds}
		return runGuest(g, proot.Command{Argv: o.Argv, Env: program.FillEnv(r.env, r.vars), Also: imagePath(r.vars), Dir: r.dir, Umask: -1})
	}
	switch {
	case o.Mounts != nil: // told by unshared
	case copyForced():
		tellOnce(st.CAS(), "with backend copy /proc, /sys, /tmp and /home are not shared with containers")
	default:
		tellOnce(st.CAS(), "nothing can be mounted here, so that /proc, /sys, /tmp and /home are not shared with containers (an installed proot would do that)")
	}
	return r.chroot(c, o.Argv)
}

// unshared says what of the paths to be shared cannot be, where there is no mounting: all
// but what can be put into a copy.
func unshared(binds []share.Bind, asked bool) error {
	var lost []string
	for _, b := range binds {
		switch {
		case b.CanSupply():
		case !b.Optional:
			return &hintedError{
				fmt.Errorf("mount %s: %w but by proot", b.Path, errNoMounts),
				"sudo apt-get install proot",
			}
		default:
			lost = append(lost, b.Path)
		}
	}
	if asked && len(lost) > 0 {
		fmt.Fprintf(os.Stderr, "plash: warning: %s: not shared with the container: %v\n", strings.Join(lost, ", "), errNoMounts)
	}
	return nil
}

// chroot becomes a command in a copy.
func (r *run) chroot(c *copytree.Copy, argv []string) error {
	if _, err := share.Supply(int(c.Root().Fd()), r.binds); err != nil {
		return err
	}
	if err := keepLock(c); err != nil {
		return err
	}
	if err := enterCopy(int(c.Root().Fd())); err != nil {
		return err
	}
	if err := r.becomeUser(); err != nil {
		return err
	}
	env := program.FillEnv(r.env, r.vars)
	if r.dir == "" || unix.Chdir(r.dir) != nil {
		env = program.SetEnv(env, "PWD", "/")
	}
	p, err := program.Find(argv, env, imagePath(r.vars))
	if err != nil {
		return err
	}
	return p.Exec(env)
}

// enterCopy makes an open directory the root of this process.
func enterCopy(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter copy: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter copy: chroot: %w", err)
	}
	return chdirRoot()
}

// lookInCopy is WithMount with a copy as the working directory.
func lookInCopy(ctx context.Context, st *container.Store, id container.ID, argv []string) error {
	c, _, err := takeCopy(ctx, st, id)
	if err == nil {
		err = keepLock(c)
	}
	if err == nil {
		err = unix.Fchdir(int(c.Root().Fd()))
	}
	if err != nil {
		return program.NotStarted(err)
	}
	env := program.SetEnv(os.Environ(), "PWD", c.Dir())
	p, err := program.Find(argv, env, "")
	if err != nil {
		return err
	}
	return p.Exec(env)
}
