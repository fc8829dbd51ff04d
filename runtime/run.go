package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// RunOptions say what [Exec] runs, and how.
type RunOptions struct {
	// Argv is the command; without one it is the shell of the first user in the
	// container's /etc/passwd, else /bin/sh.
	Argv []string
	// Mounts are the paths of the host to share, absolute or relative to the
	// working directory, and names of [share.Groups]. Nil stands for "default"; an
	// empty list, or one of empty strings, shares nothing.
	Mounts []string
	// Upper and Work name the upper and work directory of overlayfs, both or
	// none. What the command writes is then kept in Upper. Else it is kept in
	// memory, which a tmpfs limits to half of what there is, and dropped.
	Upper, Work string
	// DeescalateSudo runs the command as the user who called sudo, with his
	// groups. It does nothing for root who did not come through sudo.
	DeescalateSudo bool
}

// plain tells whether the options are those of a run that can be replayed.
func (o *RunOptions) plain() bool {
	return o.Mounts == nil && o.Upper == "" && o.Work == "" && !o.DeescalateSudo && len(o.Argv) > 0
}

// Exec becomes a command in a container: a process with the ids, environment,
// terminal, descriptors and working directory of the caller, with another root
// filesystem, and with the variables of the image that the caller does not have. Where the working directory is not there, it is / and PWD says so.
//
// It returns only if that did not work, with an [program.ExitError], or, where the caller may not
// mount, when a process that it started in his place has ended, with an [EndError]; the calling
// process should then end, as its thread may be in another mount namespace.
func Exec(ctx context.Context, st *container.Store, id container.ID, o RunOptions) error {
	return mountedOrCopied(func() error {
		if needsStage() {
			dropStalePlan(st, id)
			return becomeStaged(stageConfig{Store: st.CAS().Dir(), ID: id, Run: &o})
		}
		goruntime.LockOSThread()
		return execHere(ctx, st, id, o)
	}, func() error { return execInCopy(ctx, st, id, o) })
}

// execHere is Exec on a thread that may mount.
func execHere(ctx context.Context, st *container.Store, id container.ID, o RunOptions) error {
	r := &run{env: os.Environ(), upper: o.Upper, work: o.Work}
	r.wantPlan = r.takeReplayVar() && o.plain()
	if err := r.prepare(ctx, st, id, o); err != nil {
		if r.root != nil {
			err = errors.Join(err, r.root.Close())
		}
		return program.NotStarted(err)
	}
	r.record(st, id)
	if err := enterRoot(r.root.FD()); err != nil {
		return program.NotStarted(err)
	}
	if err := r.becomeUser(); err != nil {
		return program.NotStarted(err)
	}
	env := program.FillEnv(r.env, r.vars)
	if r.dir == "" || unix.Chdir(r.dir) != nil {
		env = program.SetEnv(env, "PWD", "/")
	}
	p, err := program.Find(o.Argv, env, imagePath(r.vars))
	if err != nil {
		return err
	}
	return p.Exec(env)
}

// becomeUser gives up what the command is not to have.
func (r *run) becomeUser() error {
	if staged != nil {
		if err := ids.DropInheritance(); err != nil {
			return err
		}
	}
	if r.who == nil {
		return nil
	}
	return r.who.Become()
}

// Inside becomes a command in the root and working directory that it has already: a plan got
// as far as that, and could not execute it. The words are the PATH of the image, or "", and the command.
// It returns as [Exec] does.
func Inside(words []string) error {
	if len(words) < 2 {
		return program.NotStarted(errors.New("no command given"))
	}
	env := os.Environ()
	p, err := program.Find(words[1:], env, words[0])
	if err != nil {
		return err
	}
	return p.Exec(env)
}

// A run is what Exec collects before it becomes the command.
type run struct {
	env         []string
	vars        []string      // of the image
	who         *ids.Identity // nil: stay who we are
	dir         string        // working directory; "" if it has no name
	upper, work string
	at          string // where the root is attached
	root        rootMount
	binds       []share.Bind
	sources     []share.Source // of the binds that the host has
	wantPlan    bool
	plan        *upperAttr // what a plan needs; nil if there will be none
}

// prepare makes the container's root in a mount namespace of this thread.
func (r *run) prepare(ctx context.Context, st *container.Store, id container.ID, o RunOptions) error {
	if o.DeescalateSudo {
		who, err := ids.SudoCaller(r.env)
		if err != nil {
			return err
		}
		if r.who = who; who != nil {
			r.env = who.Environ(r.env)
		}
	}
	var err error
	if r.binds, err = runMounts(o.Mounts, r.env); err != nil {
		return err
	}
	r.dir = workingDir()
	err = withImage(ctx, st, id, func(im *image) error {
		// A process that stays behind keeps the server, which must not keep more.
		im.log = logFor(im.log)
		r.vars = imageVars(im.config)
		if err := enterNamespace(); err != nil {
			return err
		}
		if r.sources, err = share.Open(r.binds); err != nil {
			return err
		}
		if o.Upper == "" && o.Work == "" {
			return r.openDiscarded(ctx, im)
		}
		return r.openKept(ctx, im)
	})
	if err != nil {
		return err
	}
	return share.Mount(r.root.FD(), r.sources)
}

// runMounts is what a run shares with the host.
func runMounts(list, env []string) ([]share.Bind, error) {
	if list == nil {
		list = []string{"default"}
	}
	home, _ := program.LookupEnv(env, "HOME")
	return share.Parse(list, home)
}

// workingDir is the caller's working directory by its real name; "" if it has
// been removed or lies outside our root.
func workingDir() string {
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil || n < 2 || buf[0] != '/' { // "(unreachable)/…" since Linux 2.6.36
		return ""
	}
	return string(buf[:n-1])
}

// openDiscarded mounts the container with an upper directory in memory. (On disk,
// making and removing the directories takes a millisecond more.)
func (r *run) openDiscarded(ctx context.Context, im *image) error {
	at, err := mountMemory(im.cas)
	if err != nil {
		return err
	}
	r.upper, r.work = filepath.Join(at, "u"), filepath.Join(at, "w")
	if err := makeUpper(ctx, im, r.upper, r.work); err != nil {
		return err
	}
	if r.wantPlan {
		if u, err := readUpper(r.upper); err == nil {
			r.plan = &u
		}
	}
	return r.open(ctx, im, at, overlay.Options{Upper: r.upper, Work: r.work, Volatile: true})
}

// mountMemory mounts a tmpfs in the calling thread's private mount namespace. It
// goes with that, whoever is killed when.
func mountMemory(s *cas.Store) (dir string, err error) {
	dir, err = s.MountPoint()
	if err != nil {
		return "", err
	}
	if err := unix.Mount("plash", dir, "tmpfs", 0, "mode=0700"); err != nil {
		return "", fmt.Errorf("mount tmpfs at %s: %w", dir, mountDenied(err))
	}
	return dir, nil
}

// makeUpper makes an upper and a work directory.
func makeUpper(ctx context.Context, im *image, upper, work string) error {
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make upper directory: %w", err)
		}
	}
	return overlay.PrepareUpper(ctx, im.cas, im.layers, upper)
}

// absUpper makes the names of an upper and a work directory absolute, if there
// are any.
func absUpper(upper, work *string) error {
	if (*upper == "") != (*work == "") {
		return errors.New("an upper and a work directory belong together")
	}
	for _, dir := range []*string{upper, work} {
		if *dir == "" {
			continue
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("upper directory %s: %w", *dir, err)
		}
		*dir = abs
	}
	return nil
}

// openKept mounts the container with the caller's upper directory, which is the
// mount point too.
func (r *run) openKept(ctx context.Context, im *image) error {
	if err := absUpper(&r.upper, &r.work); err != nil {
		return err
	}
	below, err := im.missing(ctx, r.binds, func() (string, error) { return mountMemory(im.cas) })
	if err != nil {
		return err
	}
	return r.open(ctx, im, r.upper, overlay.Options{Upper: r.upper, Work: r.work, Below: below})
}

func (r *run) open(ctx context.Context, im *image, at string, o overlay.Options) error {
	open := im.open
	if at == o.Upper {
		open = im.openKept
	}
	m, err := open(ctx, o)
	if err != nil {
		return err
	}
	r.root, r.at = m, at
	return m.AttachTo(at)
}

// missing makes the mount points for binds that the container lacks, in a
// directory to go below its layers. Memory gives a place for that: on the store's
// disk, if that is an overlayfs, the directory would lie too deep for another one.
func (im *image) missing(ctx context.Context, binds []share.Bind, memory func() (string, error)) (below []string, err error) {
	m, err := im.look(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, im.done(m)) }()
	if m.FD() < 0 {
		return nil, nil // before Linux 5.2: they are made in the upper directory
	}
	made, err := share.Skeleton(m.FD(), binds, func() (string, error) {
		dir, err := memory()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(dir, "below")
		return dir, os.Mkdir(dir, 0o755)
	})
	if err != nil || made == "" {
		return nil, err
	}
	return []string{made}, nil
}
