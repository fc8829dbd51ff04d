package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// LayerOptions say what makes a layer: a script, or a command.
type LayerOptions struct {
	// Script is the whole text of a shell script of any length, run by "sh -l"
	// in / with umask 022. It shares with the host /home, /dev, /sys and
	// /etc/resolv.conf unless Mounts says otherwise, has an environment of PATH, HOME and the
	// variables of the image alone unless Env says otherwise, and nothing on standard input
	// unless Stdin says otherwise. Its standard output goes to Stderr unless
	// Stdout is given.
	Script string
	// Argv is the command to run where there is no Script; without it, the
	// container's shell. It has working directory, environment, standard streams
	// and mounts as [Exec] gives them, unless the fields below say otherwise.
	Argv []string

	Env                   []string // nil: see above
	Mounts                []string // nil: see above; else as in [RunOptions]
	Stdin, Stdout, Stderr *os.File // nil: see above
	// Input is a directory of the host that a script finds at InputPath; "" for none. It
	// leaves no trace in the layer. What the script writes there stays in it.
	Input string
	// Kept is what the steps of a build have in common, or nil.
	Kept *Kept
	// IgnoreStatus keeps what the command changed also when it fails.
	IgnoreStatus bool
}

// Kept is what one RunLayer leaves mounted for the next one on top of its layer: the layers below. What
// has been read of them, the shell for one, is then in the kernel's cache. The zero value is empty; it
// is for one RunLayer at a time, and to be closed after the last.
type Kept struct{ layers overlay.Layers }

// Close lets go of the mounts.
func (k *Kept) Close() { k.layers.Close() }

// InputPath is where a script finds its input.
const InputPath = "/.plash-input"

// scriptMounts is what a script shares with the host. /proc is always there.
var scriptMounts = []share.Bind{
	{Path: "/dev", Optional: true},
	{Path: "/etc/resolv.conf", Optional: true},
	{Path: "/home", Optional: true},
	{Path: "/proc", Optional: true},
	{Path: "/sys", Optional: true},
}

// RunLayer runs a script or a command on a container, in a pid namespace of its
// own, and returns what it changed as a layer that is not published yet.
//
// The error wraps [*CommandError] if the command failed, [*program.ExitError] if it could
// not be started, [*InterruptError] if SIGINT, SIGQUIT, SIGTERM or SIGHUP ended the
// work. SIGINT and SIGQUIT are left to a command that runs on our terminal. Whatever
// happens, no process of the command survives RunLayer or this process.
//
// It needs [MaybeInit] in the program's main.
func RunLayer(ctx context.Context, st *container.Store, parent container.ID, o LayerOptions) (staged *cas.Staged, err error) {
	err = mountedOrCopied(func() (err error) {
		staged, err = layerMounted(ctx, st, parent, o)
		return err
	}, func() (err error) {
		staged, err = layerInCopy(ctx, st, parent, o)
		return err
	})
	return staged, err
}

// layerMounted is RunLayer with mounts.
func layerMounted(ctx context.Context, st *container.Store, parent container.ID, o LayerOptions) (staged *cas.Staged, err error) {
	if needsStage() {
		return layerStaged(ctx, st, parent, o)
	}
	err = runLayer(ctx, st, parent, o, func(ctx context.Context, upper *os.File, _ *overlay.Flat) (err error) {
		staged, err = overlay.PackUpper(ctx, st.CAS(), upper)
		return err
	})
	if err != nil && staged != nil {
		err = errors.Join(err, staged.Close())
		staged = nil
	}
	return staged, err
}

// runLayer runs a script or a command and has pack do something with the upper directory
// that it leaves.
func runLayer(ctx context.Context, st *container.Store, parent container.ID, o LayerOptions, pack packFunc) (err error) {
	ctx, signals := interruptible(ctx)
	defer signals.stop()
	scratch, err := st.CAS().Scratch("build")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	s := &step{scratch: scratch, options: o, signals: signals}
	err = s.make(ctx, st, parent, pack)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		// What failed because it was told to stop is not worth telling.
		return cause
	}
	return err
}

// Reclaim removes what killed processes have left in the store's scratch space, also what belongs
// to subordinate ids of the caller, which takes a stage. Where there are none it does nothing
// that [cas.Store.Reclaim] does not.
func Reclaim(s *cas.Store) error {
	err := s.Reclaim()
	if !errors.Is(err, fs.ErrPermission) || !needsStage() {
		return err
	}
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		st, err := startStage(ids.AsRoot, unix.SIGKILL, stageFiles{stderr: os.Stderr}, stageConfig{Store: s.Dir(), Clean: true})
		if st == nil {
			done <- err
			return
		}
		o, _, toldErr := st.told()
		done <- errors.Join(err, toldErr, o.err(), ignoreExit(st.cmd.Wait()), st.close())
	}()
	return <-done
}

// A packFunc makes something of an upper directory, in which everything belongs to one user
// if flat is not nil.
type packFunc func(ctx context.Context, upper *os.File, flat *overlay.Flat) error

// A step is one RunLayer.
type step struct {
	scratch *cas.Scratch
	memory  string // a tmpfs in the step's mount namespace
	options LayerOptions
	signals *interrupts
	upper   string
	config  initConfig
	root    rootMount
	script  *os.File
	emulation
	closing chan error // how closing the root ends, if that goes on; nil: it does not
	inCopy  bool       // there are no namespaces, and the root is a copy
}

// make runs the command and has what it changed packed.
func (s *step) make(ctx context.Context, st *container.Store, parent container.ID, pack packFunc) (err error) {
	var upper *os.File
	err = inNamespace(func() (err error) {
		upper, err = s.run(ctx, st, parent)
		return err
	})
	defer func() {
		if s.closing != nil {
			err = errors.Join(err, <-s.closing)
		}
	}()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upper.Close()) }()
	flat, err := s.flat(ctx, st.CAS())
	if err != nil {
		return err
	}
	// Not in the namespace: link(2) wants to see the store by the same mount that
	// the caller publishes the layer by.
	err = pack(ctx, upper, flat)
	if flat != nil {
		err = errors.Join(err, flat.Close())
	}
	return err
}

// run returns the upper directory after the command. It is to be called in a
// private mount namespace.
func (s *step) run(ctx context.Context, st *container.Store, parent container.ID) (upper *os.File, err error) {
	if s.memory, err = mountMemory(st.CAS()); err == nil {
		err = s.prepare()
	}
	if err == nil {
		err = withImage(ctx, st, parent, func(im *image) error { return s.mount(ctx, im) })
	}
	if err == nil {
		err = s.supervise(ctx)
	}
	if s.root != nil {
		err = errors.Join(err, s.closeRoot())
	}
	if s.script != nil {
		err = errors.Join(err, s.script.Close())
	}
	var failed *CommandError
	if err != nil && !(s.options.IgnoreStatus && errors.As(err, &failed)) {
		return nil, err
	}
	upper, err = os.Open(s.upper)
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	return upper, nil
}

// closeRoot lets go of the root. One of the kernel's is closed while the layer is packed, as what was
// written is in the upper directory, and the kernel takes half a millisecond for it; our own
// filesystem writes out what it has.
func (s *step) closeRoot() error {
	m, ok := s.root.(*overlay.Mount)
	if !ok {
		return s.root.Close()
	}
	s.closing = make(chan error, 1)
	go func() { s.closing <- m.Close() }()
	return nil
}

// prepare fills in the options' defaults, and what the init is told.
func (s *step) prepare() error {
	o := &s.options
	s.config = initConfig{At: s.memory, Argv: o.Argv, Env: o.Env, Umask: -1}
	if o.Script == "" {
		return s.prepareCommand()
	}
	return s.prepareScript()
}

func (s *step) prepareCommand() (err error) {
	o, c := &s.options, &s.config
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Dir = workingDir()
	c.Binds, err = runMounts(o.Mounts, c.Env)
	for _, std := range []struct{ file, def **os.File }{
		{&o.Stdin, &os.Stdin}, {&o.Stdout, &os.Stdout}, {&o.Stderr, &os.Stderr},
	} {
		if *std.file == nil {
			*std.file = *std.def
		}
	}
	return err
}

// maxScriptVar is how long a script may be that the shell gets in a variable. One
// has 128 KiB at most, and so much is what arguments and environment have together
// where the stack may not grow (execve(2)).
const maxScriptVar = 64 << 10

// scriptVar is the environment variable that hands a script to its shell, which
// unsets it before it runs the script.
const scriptVar = "PLASH_SCRIPT"

func (s *step) prepareScript() (err error) {
	o, c := &s.options, &s.config
	if c.Env == nil {
		c.Env = []string{"PATH=" + program.DefaultPath, "HOME=/root"}
	}
	c.Dir, c.Umask = "/", 0o022
	c.Binds = scriptMounts
	if o.Mounts != nil {
		if c.Binds, err = runMounts(o.Mounts, c.Env); err != nil {
			return err
		}
	}
	if o.Input != "" {
		c.Binds = append(c.Binds[:len(c.Binds):len(c.Binds)], share.Bind{Path: InputPath, From: o.Input})
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Stdout == nil {
		o.Stdout = o.Stderr
	}
	if len(o.Script) <= maxScriptVar && !strings.Contains(o.Script, "\x00") {
		// So the shell's messages begin with "sh: ", and not with a file's name. Not
		// as an argument, which everyone on the machine can read: scripts have secrets.
		c.Argv = []string{"sh", "-l", "-c", `eval "unset ` + scriptVar + `; $` + scriptVar + `"`, "sh"}
		c.Env = append(c.Env[:len(c.Env):len(c.Env)], scriptVar+"="+o.Script)
		return nil
	}
	c.Argv, c.HasScript = []string{"sh", "-l"}, true
	name := filepath.Join(s.scratch.Path(), "script")
	if err := os.WriteFile(name, []byte(o.Script), 0o600); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	s.script, err = os.Open(name)
	return err
}

// mount makes the container's root, with an upper directory that will become
// the layer and with mount points below all layers, where they leave no trace. The
// upper directory lies on the store's disk, or in memory if that cannot hold one.
func (s *step) mount(ctx context.Context, im *image) error {
	if s.options.Kept != nil {
		im.kept = &s.options.Kept.layers
	}
	s.adopt(im.config)
	if err := s.emulate(ctx, im); err != nil {
		return err
	}
	below, err := im.missing(ctx, s.config.Binds, func() (string, error) { return s.memory, nil })
	if err != nil {
		return err
	}
	err = s.mountUpper(ctx, im, s.scratch.Path(), below)
	if errors.Is(err, overlay.ErrUpper) || errors.Is(err, unix.EOPNOTSUPP) {
		err = s.mountUpper(ctx, im, s.memory, below)
	}
	return err
}

func (s *step) mountUpper(ctx context.Context, im *image, dir string, below []string) (err error) {
	s.upper = filepath.Join(dir, "u")
	work := filepath.Join(dir, "w")
	if err := makeUpper(ctx, im, s.upper, work); err != nil {
		return err
	}
	if s.config.Emulate != nil {
		s.config.Emulate.Upper = s.upper
	}
	s.root, err = im.open(ctx, overlay.Options{Upper: s.upper, Work: work, Volatile: true, Below: below})
	return err
}

// PackDir makes a layer of the content of a directory, to go on a container. It
// is not published yet; the directory is left as it is.
func PackDir(ctx context.Context, st *container.Store, parent container.ID, dir string) (staged *cas.Staged, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Packing may take long: the container is looked up, but not kept from being
	// removed, which making the new one on it would tell.
	var layers []overlay.Layer
	if err := withImage(ctx, st, parent, func(im *image) error {
		layers = im.layers
		return nil
	}); err != nil {
		return nil, err
	}
	return overlay.PackContent(ctx, st.CAS(), layers, f)
}
