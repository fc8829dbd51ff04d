// Package program finds the command of a command line in the root that the calling thread has,
// as execvp(3) would, and executes it: [Find], then [Program.Exec], [Program.Fork] or, where others
// execute it, [Program.CommandLine]. What an environment says is read and changed by functions
// of it too.
//
// Invariants:
//   - Who is told that a command was not started gets an [ExitError], with the exit code that
//     env(1) and chroot(1) give that.
//   - Files of an image that are looked at may be anything: a named pipe does not make it wait.
//   - An environment that is given is not changed: functions return another one.
//
// It enters no root and changes no ids, and waits for nothing that it starts.
package program

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/share"
)

// DefaultPath is where commands are looked for without PATH, and what the steps of a build
// have as PATH.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// shell runs scripts without a #! line, and is what a user has whom passwd(5) gives none.
const shell = "/bin/sh"

// A Program is what to execute for a command line.
type Program struct {
	path string
	argv []string
}

// Find looks for a command the way execvp(3) does, in the root and working
// directory of the calling thread, and where it is not in PATH, in the directories of also.
// Without a command it is the container's shell. The error is an [ExitError].
func Find(argv, env []string, also string) (Program, error) {
	if len(argv) == 0 {
		sh := loginShell()
		return Program{sh, []string{path.Base(sh)}}, nil
	}
	name := argv[0]
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return Program{}, execError(name, err)
		}
		return Program{name, argv}, nil
	}
	if name == "" {
		return Program{}, execError(name, unix.ENOENT)
	}
	dirs, ok := LookupEnv(env, "PATH")
	if !ok {
		dirs = DefaultPath
	}
	err := error(unix.ENOENT)
	search := strings.Split(dirs, ":")
	if also != "" {
		search = append(search, strings.Split(also, ":")...)
	}
	for _, dir := range search {
		file := path.Join(dir, name)
		if dir == "" {
			file = "./" + name
		}
		this := executable(file)
		if this == nil {
			return Program{file, argv}, nil
		}
		// As execvp: a file that is there and cannot be executed is remembered, and
		// the search goes on.
		if errors.Is(this, unix.EACCES) {
			err = this
		}
	}
	return Program{}, execError(name, err)
}

// Dirs are the directories that a command is looked for in.
func Dirs(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{path.Dir(name)}
	}
	dirs, ok := LookupEnv(env, "PATH")
	if !ok {
		dirs = DefaultPath
	}
	return strings.Split(dirs, ":")
}

// executable says why a file cannot be executed by this process; nil if it can,
// as far as its mode goes.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES // what execve(2) says of directories too
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, 0)
}

// Exec becomes the program; it returns only an [ExitError].
func (p Program) Exec(env []string) error {
	replay.RestoreIgnored()
	err := unix.Exec(p.path, p.argv, env)
	if errors.Is(err, unix.ENOEXEC) && !p.isELF() {
		sh := p.viaShell()
		err = unix.Exec(sh.path, sh.argv, env)
	}
	return execError(p.argv[0], p.explain(err))
}

// Fork has the program started by forkExec, which does what [syscall.ForkExec] does. The error
// is an [ExitError].
func (p Program) Fork(
	forkExec func(path string, argv []string, attr *syscall.ProcAttr) (int, error), attr *syscall.ProcAttr,
) (pid int, err error) {
	pid, err = forkExec(p.path, p.argv, attr)
	if errors.Is(err, unix.ENOEXEC) && !p.isELF() {
		sh := p.viaShell()
		pid, err = forkExec(sh.path, sh.argv, attr)
	}
	if err != nil {
		return 0, execError(p.argv[0], p.explain(err))
	}
	return pid, nil
}

// viaShell is what execvp(3) does for a file in no known format: a script
// without #! line.
func (p Program) viaShell() Program {
	return Program{shell, append([]string{"sh", p.path}, p.argv[1:]...)}
}

// errInterpreter says that a file is there, but what its #! line or ELF header
// asks for is not.
var errInterpreter = errors.New("its interpreter or dynamic loader is not there")

// explain tells the two reasons apart for which execve(2) says ENOENT, and those for ENOEXEC.
func (p Program) explain(err error) error {
	if errors.Is(err, unix.ENOENT) && executable(p.path) == nil {
		return errInterpreter
	}
	return noFormat(p.path, err)
}

// execError is the error about a command, with its exit code.
func execError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		if strings.Contains(name, "/") {
			return &ExitError{CodeNotFound, fmt.Errorf("%s: not found: %w", name, err)}
		}
		return &ExitError{CodeNotFound, fmt.Errorf("%s: command not found", name)}
	default:
		return &ExitError{CodeCannotExecute, fmt.Errorf("%s: cannot be executed: %w", name, err)}
	}
}

// loginShell is the shell of the first user of the container, which is root.
func loginShell() string {
	// O_NONBLOCK: whatever an image has there, opening it does not hang.
	return shellOf(unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0))
}

// ShellIn is the shell of the first user of a container whose root is an open directory;
// /bin/sh where it does not say.
func ShellIn(root int) string {
	return shellOf(share.OpenInside(root, "/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK))
}

// shellOf reads an open passwd, and closes it.
func shellOf(fd int, err error) string {
	if err != nil {
		return shell
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return shell
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	// passwd(5): name, password, uid, gid, comment, home, shell.
	f := strings.Split(line, ":")
	if len(f) < 7 || !strings.HasPrefix(f[6], "/") {
		return shell
	}
	return strings.TrimSpace(f[6])
}
