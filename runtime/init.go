package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/fusefs"
	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/proot"
	"github.com/ihucos/plash/runtime/reaper"
	"github.com/ihucos/plash/runtime/share"
)

// initName is the name under which the program is started again to be the init
// of a step.
const initName = replay.StepInit

// Descriptors of an init.
const (
	configFD = 3 + iota // an initConfig as JSON comes in
	statusFD            // an outcome as JSON goes out
	rootFD              // the container's root, a detached mount
	scriptIn            // the script to run, if there is one
	planFD              // what to do before Go starts, see [step.plan]; then the others but statusFD and rootFD are not used
)

// An initConfig tells an init what to do.
type initConfig struct {
	At        string // where to attach the root: a directory of the host
	Binds     []share.Bind
	Argv, Env []string
	Also      string // where else the command may be, as PATH
	Dir       string // working directory; where it is not there, /
	Umask     int    // -1: leave it
	// HasScript adds the script's name as the last argument, for scripts that are
	// too long to be an argument themselves. The init keeps the file open, and the
	// shell opens it by the init's descriptor: nothing has to be put into the
	// container, and the processes of the step have no descriptor too much.
	HasScript bool
	// Emulate says that root is emulated, as there is but one user.
	Emulate *emulateConfig `json:",omitempty"`
	Guest   *guestConfig   `json:",omitempty"` // there are no namespaces, and rootFD is a copy

	emulator *emulator
}

// MaybeInit is for the first line of main. In a process that this package started it
// is the init of a step or the server of a mount, and does not return; else it does
// nothing.
func MaybeInit() {
	fusefs.MaybeServe()
	maybeStage()
	proot.MaybeInside()
	maybePrepare()
	if len(os.Args) != 1 || os.Args[0] != initName {
		return
	}
	for fd := configFD; fd <= planFD; fd++ {
		unix.CloseOnExec(fd)
	}
	status := os.NewFile(statusFD, "status")
	st := stepInit()
	if err := json.NewEncoder(status).Encode(st); err != nil {
		os.Exit(1)
	}
	// The kernel kills what is left in the pid namespace.
	os.Exit(0)
}

// stepInit sets the container up, runs the command in it, and returns when that
// has ended.
func stepInit() outcome {
	// The kernel sends an init no signal that it has no handler for, but Go has
	// handlers, for the default action. The parent decides what a signal means;
	// the command gets the default actions back by exec.
	for _, sig := range []os.Signal{
		syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2,
	} {
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// This one may tell an init without namespaces to end, from here on.
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	var c initConfig
	if err := json.NewDecoder(os.NewFile(configFD, "config")).Decode(&c); err != nil {
		return outcome{Failure: fmt.Sprintf("read what to run: %v", err)}
	}
	if c.Guest != nil {
		return c.runInCopy(end)
	}
	pid, err := c.start()
	if err != nil {
		return outcomeOf(err)
	}
	st := await(pid)
	if c.emulator != nil {
		if err := c.emulator.finish(); err != nil {
			return outcomeOf(err)
		}
	}
	return st
}

// start makes the root of the container and forks the command.
func (c *initConfig) start() (pid int, err error) {
	if c.Emulate != nil {
		if c.emulator, err = c.Emulate.prepare(); err != nil {
			return 0, err
		}
	}
	if err := c.makeRoot(); err != nil {
		return 0, err
	}
	return c.fork()
}

// fork forks the command, in the root that this process has.
func (c *initConfig) fork() (pid int, err error) {
	if c.Umask >= 0 {
		unix.Umask(c.Umask)
	}
	if c.Dir == "" || unix.Chdir(c.Dir) != nil {
		c.Env = program.SetEnv(c.Env, "PWD", "/")
	}
	argv := c.Argv
	if c.HasScript {
		// The init's id as the container's /proc shows it: 1, or what it is on
		// the host where that /proc is the host's.
		me, err := os.Readlink("/proc/self")
		if err != nil {
			return 0, fmt.Errorf("find the script: %w", err)
		}
		argv = append(argv, fmt.Sprintf("/proc/%s/fd/%d", me, scriptIn))
	}
	p, err := program.Find(argv, c.Env, c.Also)
	if err != nil {
		return 0, err
	}
	forkExec := syscall.ForkExec
	if c.emulator != nil {
		forkExec = c.emulator.fork
	}
	return p.Fork(forkExec, &syscall.ProcAttr{Env: c.Env, Files: []uintptr{0, 1, 2}})
}

func (c *initConfig) makeRoot() error {
	if err := makeSlave(); err != nil {
		return err
	}
	var shared []share.Bind
	var proc *share.Bind
	for _, b := range c.Binds {
		if b.Path == "/proc" {
			proc = &b
			continue
		}
		shared = append(shared, b)
	}
	sources, err := share.Open(shared)
	if err != nil {
		return err
	}
	if err := unix.MoveMount(rootFD, "", unix.AT_FDCWD, c.At, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach container to %s: %w", c.At, err)
	}
	if proc != nil {
		if err := share.MountProc(rootFD, *proc); err != nil {
			return err
		}
	}
	if err := share.Mount(rootFD, sources); err != nil {
		return err
	}
	return enterRoot(rootFD)
}

// await waits for the end of the command, and meanwhile of what has been left to the init.
func await(command int) outcome {
	status, err := reaper.Wait(command)
	switch {
	case err != nil:
		return outcome{Failure: err.Error()}
	case status.Signaled():
		return outcome{Signal: status.Signal()}
	}
	return outcome{Code: status.ExitStatus()}
}
