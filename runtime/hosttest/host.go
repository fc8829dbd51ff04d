package hosttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Host is this machine, as a command finds it that is told less than the truth: for
// tests by root. The machine itself stays as it is.
type Host struct {
	User             string   // who runs the command; "": the caller
	Without          []string // filesystems that the kernel does not know
	NoUserNamespaces bool     // making one is refused, as Docker's filter does
	NoneLeft         bool     // user.max_user_namespaces is 0
	NoFUSE           bool     // there is no /dev/fuse
	Missing          []string // paths of programs that are not installed
	OwnProcesses     bool     // all processes that the command has started end with it

	Step step // how far Become is
}

type step int

const (
	outside step = iota
	inMountNamespace
	inUserNamespace
)

// hostName is under which name a test's program is started again to become a host.
const hostName = "plash-host"

// Command is a command on the host. Its program must call [Become] first.
func (h Host) Command(name string, args ...string) (*exec.Cmd, error) {
	config, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{hostName, string(config), name}, args...),
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}, nil
}

// Become makes this process the host that its arguments ask for, if they do, and runs the
// command there. Then the process is to end, with the code.
func Become(args []string, stdin, stdout, stderr *os.File) (code int, is bool) {
	if len(args) < 3 || args[0] != hostName {
		return 0, false
	}
	goruntime.LockOSThread()
	var h Host
	err := json.Unmarshal([]byte(args[1]), &h)
	if err == nil {
		err = h.run(args[2:], func(cmd *exec.Cmd) {
			cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		})
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), true
	}
	fmt.Fprintf(stderr, "host for %s: %v\n", args[2], err)
	return 125, true
}

func (h Host) run(argv []string, streams func(*exec.Cmd)) error {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	switch h.Step {
	case outside:
		attr.Cloneflags = unix.CLONE_NEWNS
		if h.OwnProcesses {
			attr.Cloneflags |= unix.CLONE_NEWPID
		}
		return h.goOn(inMountNamespace, attr, argv, streams)
	case inMountNamespace:
		if err := h.arrange(); err != nil {
			return err
		}
		if h.NoneLeft {
			// The limit of a namespace is its own, and one with all ids is like that of the machine.
			all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
			attr.Cloneflags, attr.UidMappings, attr.GidMappings = unix.CLONE_NEWUSER|unix.CLONE_NEWNS, all, all
			attr.GidMappingsEnableSetgroups = true
			return h.goOn(inUserNamespace, attr, argv, streams)
		}
	case inUserNamespace:
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			return err
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	streams(cmd)
	cmd.SysProcAttr = attr
	if h.User != "" {
		l, err := lookUp(h.User)
		if err != nil {
			return err
		}
		attr.Credential = l.credential()
	}
	if h.NoUserNamespaces {
		if err := refuseUserNamespaces(); err != nil {
			return err
		}
	}
	if len(h.Without) > 0 {
		return Without(h.Without, cmd)
	}
	return cmd.Run()
}

// goOn starts the program again to take the next step.
func (h Host) goOn(next step, attr *syscall.SysProcAttr, argv []string, streams func(*exec.Cmd)) error {
	h.Step = next
	cmd, err := h.Command(argv[0], argv[1:]...)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = attr
	streams(cmd)
	return cmd.Run()
}
