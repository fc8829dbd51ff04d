package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay/copytree"
	"github.com/ihucos/plash/runtime/proot"
	"github.com/ihucos/plash/runtime/share"
)

// layerInCopy is RunLayer in a copy, which then becomes one of the new layer: so the
// next step need not copy, nor look for what this one did.
func layerInCopy(ctx context.Context, st *container.Store, parent container.ID, o LayerOptions) (staged *cas.Staged, err error) {
	ctx, signals := interruptible(ctx)
	defer signals.stop()
	scratch, err := st.CAS().Scratch("build")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	s := &copyStep{step: step{scratch: scratch, options: o, signals: signals, inCopy: true}}
	staged, err = s.make(ctx, st, parent)
	if err != nil && staged != nil {
		err = errors.Join(err, staged.Close())
		staged = nil
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		// What failed because it was told to stop is not worth telling.
		return nil, cause
	}
	return staged, err
}

// A copyStep is a step in a copy.
type copyStep struct {
	step
	way  guestWay
	copy *copytree.Copy
	// without are the paths that are not of the layer: what a host with mounts would
	// have shared. So the same script makes the same layer there and here.
	without []string
	lent    bool // the input is in the copy
}

func (s *copyStep) make(ctx context.Context, st *container.Store, parent container.ID) (staged *cas.Staged, err error) {
	if s.way, err = findWay(st.CAS(), true); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if s.script != nil {
		defer func() { err = errors.Join(err, s.script.Close()) }()
	}
	copied, config, err := takeCopy(ctx, st, parent)
	if err != nil {
		return nil, err
	}
	s.copy = copied
	s.adopt(config)
	defer func() { err = errors.Join(err, s.copy.Close()) }()
	defer func() { err = errors.Join(err, s.returnInput()) }()
	if err := s.furnish(ctx); err != nil {
		return nil, err
	}
	switch {
	case s.way.proot == "":
		tellOnce(st.CAS(), "nothing can be mounted here, so that build steps have no /proc, /sys and /home")
	case os.Geteuid() != 0:
		tellOnce(st.CAS(), "without root and user namespaces, files that builds make belong to root in the layer")
	}
	err = s.supervise(ctx)
	var failed *CommandError
	if err != nil && !(s.options.IgnoreStatus && errors.As(err, &failed)) {
		return nil, err
	}
	return s.pack(ctx)
}

// supervise is that of a step, on a thread that does not end meanwhile.
func (s *copyStep) supervise(ctx context.Context) error {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	s.root = copyRoot{s.copy}
	err := s.step.supervise(ctx)
	var command *CommandError
	if err != nil && !errors.As(err, &command) {
		s.copy.Evict() // the init may have been killed, and could not end what it had started
	}
	return err
}

// scriptInCopy is where a script lies that is too long for a variable: there need not be a
// /proc to reach it by a descriptor.
const scriptInCopy = ".plash-script"

// furnish puts into the copy what the command needs.
func (s *copyStep) furnish(ctx context.Context) error {
	root := int(s.copy.Root().Fd())
	put, err := supplyFor(s.way, root, s.config.Binds)
	if err != nil {
		return err
	}
	if s.script != nil {
		put.Note(scriptInCopy)
		if err := s.putScript(root); err != nil {
			return fmt.Errorf("write script: %w", err)
		}
	}
	if s.options.Input != "" && s.way.proot == "" {
		if err := s.lendInput(root); err != nil {
			return err
		}
	}
	s.without = put.Paths
	if err := s.copy.Tree().Forgive(put.Parents); err != nil {
		return err
	}
	s.config.Guest = &guestConfig{Chroot: s.way.proot == ""}
	if s.way.proot != "" {
		s.config.Guest.Proot, s.config.Guest.Dir = s.way.proot, s.copy.Dir()
	}
	return s.copy.Settle(ctx)
}

// supplyFor supplies a copy for what is entered in a way.
func supplyFor(way guestWay, root int, binds []share.Bind) (*share.Supplied, error) {
	if way.proot == "" {
		return share.Supply(root, binds)
	}
	// proot would make what is missing, and leave it there.
	put, err := share.SupplyPlaces(root, binds)
	if err != nil {
		return nil, err
	}
	return put, put.MakeFile(root, strings.TrimPrefix(proot.Self, "/"))
}

func (s *copyStep) putScript(root int) error {
	fd, err := unix.Openat(root, scriptInCopy, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), scriptInCopy)
	_, err = f.WriteString(s.options.Script)
	s.config.HasScript = false
	s.config.Argv = append(s.config.Argv, "/"+scriptInCopy)
	return errors.Join(err, f.Close())
}

// inputInCopy is where the input lies in a copy.
var inputInCopy = strings.TrimPrefix(InputPath, "/")

// lendInput moves the input into the copy, which lies on the same filesystem if the input is
// of the store: there are no mounts, and the command is to have it below its root.
func (s *copyStep) lendInput(root int) error {
	if err := unix.Renameat(unix.AT_FDCWD, s.options.Input, root, inputInCopy); err != nil {
		return fmt.Errorf("put %s into the copy: %w", s.options.Input, err)
	}
	s.lent = true
	return nil
}

// returnInput moves it back.
func (s *copyStep) returnInput() error {
	if !s.lent {
		return nil
	}
	s.lent = false
	if err := unix.Renameat(int(s.copy.Root().Fd()), inputInCopy, unix.AT_FDCWD, s.options.Input); err != nil {
		return fmt.Errorf("take %s back from the copy: %w", s.options.Input, err)
	}
	return nil
}

// pack makes a layer of what the command did, and the copy one of the container with it.
func (s *copyStep) pack(ctx context.Context) (*cas.Staged, error) {
	if s.copy.InUse() {
		return nil, errors.New("pack layer: a process that the step has left is still in its copy")
	}
	staged, err := s.copy.Tree().Pack(ctx, s.without)
	if err != nil {
		return nil, err
	}
	if s.script != nil {
		err = unix.Unlinkat(int(s.copy.Root().Fd()), scriptInCopy, 0)
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err == nil {
		err = s.returnInput()
	}
	if err == nil {
		err = s.copy.Become(staged.Digest(), s.without)
	}
	return staged, err
}

// A copyRoot is a copy as the root of a step.
type copyRoot struct{ copy *copytree.Copy }

func (r copyRoot) FD() int               { return int(r.copy.Root().Fd()) }
func (r copyRoot) AttachTo(string) error { return errNoMounts }
func (r copyRoot) Close() error          { return nil } // the copy is closed by who took it
