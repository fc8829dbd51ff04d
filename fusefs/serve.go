package fusefs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// Names under which the program is started again: first to start the server, so that
// this is nobody's child whom its parent could wait for, and then to be it.
const (
	starterName = "plash-fuse-starter"
	serverName  = "plash-fuse-server"
	// ownMounts is the last argument of a server that has a mount namespace of its own.
	ownMounts = "own-mounts"
)

// Descriptors of both.
const (
	configFD = 3 + iota // a serverConfig as JSON comes in
	socketFD            // the FUSE device comes in, a serverStatus as JSON goes out
	firstFD             // what is open from here on is not for the server
)

// A serverConfig tells a server what to serve.
type serverConfig struct {
	Store  string
	Layers []digest.Digest
	Source string
}

// A serverStatus tells that the mount answers, or why it never will.
type serverStatus struct {
	Failure string
}

// MaybeServe is for the first line of main. In a process that [Open] started it
// serves the mount and does not return; else it does nothing.
func MaybeServe() {
	if len(os.Args) == 0 || os.Args[0] != starterName && os.Args[0] != serverName {
		return
	}
	socket := os.NewFile(socketFD, "socket")
	var err error
	if os.Args[0] == starterName {
		err = detachServer()
	} else {
		err = serve(socket)
	}
	if err != nil {
		_ = json.NewEncoder(socket).Encode(serverStatus{Failure: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

// detachServer starts the server in a session of its own, and in a mount namespace of
// its own if it may have one.
func detachServer() error {
	for fd := range firstFD {
		if fd >= configFD {
			unix.CloseOnExec(fd)
		}
	}
	start := func(flags uintptr, more ...string) error {
		args := append([]string{serverName}, os.Args[1:]...)
		cmd := &exec.Cmd{
			Path: "/proc/self/exe", Args: append(args, more...), Env: []string{}, Dir: "/",
			Stderr:      os.Stderr,
			ExtraFiles:  []*os.File{os.NewFile(configFD, "config"), os.NewFile(socketFD, "socket")},
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Unshareflags: flags},
		}
		return cmd.Start()
	}
	err := start(unix.CLONE_NEWNS, ownMounts)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		err = start(0)
	}
	if err != nil {
		return fmt.Errorf("start FUSE server: %w", err)
	}
	return nil
}

// serve is the life of a server.
func serve(socket *os.File) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP)
	// Requests leave little garbage, but buffers of maxRequest bytes.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(maxMapped)
	if err := closeInherited(); err != nil {
		return fmt.Errorf("close what was inherited: %w", err)
	}
	configFile := os.NewFile(configFD, "config")
	var config serverConfig
	if err := json.NewDecoder(configFile).Decode(&config); err != nil {
		return fmt.Errorf("read what to serve: %w", err)
	}
	if err := configFile.Close(); err != nil {
		return err
	}
	out := &logger{out: os.Stderr, prefix: strings.TrimSpace("plash: " + config.Source)}
	fs, err := openFilesystem(&config, out)
	if err != nil {
		return err
	}
	device, err := receiveFile(socket)
	if err != nil {
		return fmt.Errorf("wait for the mount: %w", err)
	}
	leaveMounts()
	server, err := fuse.NewServer(fs, "/dev/fd/"+strconv.Itoa(device), fs.mountOptions(out))
	if err != nil {
		return fmt.Errorf("serve FUSE: %w", err)
	}
	if err := json.NewEncoder(socket).Encode(serverStatus{}); err != nil {
		return fmt.Errorf("tell that the mount answers: %w", err)
	}
	if err := socket.Close(); err != nil {
		return err
	}
	server.Serve()
	return nil
}

func openFilesystem(c *serverConfig, out io.Writer) (*filesystem, error) {
	store, err := cas.Open(c.Store)
	if err != nil {
		return nil, err
	}
	view, err := store.View(context.Background(), c.Layers)
	if err != nil {
		return nil, err
	}
	fs, err := newFilesystem(view, out)
	if err != nil {
		return nil, errors.Join(err, view.Close())
	}
	// Without it, memory is not limited, which is no reason not to serve.
	fs.memory.statm, _ = os.Open("/proc/self/statm")
	return fs, nil
}

// mountOptions are what the kernel is told at first (INIT).
func (fs *filesystem) mountOptions(out io.Writer) *fuse.MountOptions {
	// With access control lists, the kernel asks for one of every file that another than its
	// owner opens.
	_, acls := fs.image.MayHaveXattrs()
	return &fuse.MountOptions{
		MaxWrite: maxRequest, MaxBackground: 64, CongestionThreshold: 64,
		EnableSymlinkCaching: true, ExplicitDataCacheControl: true, EnableAcl: acls,
		RememberInodes:    true, // there is nothing to forget
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_EXPORT_SUPPORT,
		DisableSplice:     true,
		Logger:            log.New(out, "", 0),
		PanicHandler: func(what any) fuse.Status {
			fmt.Fprintf(out, "a mistake in plash: %v\n", what)
			return fuse.EIO
		},
	}
}

// leaveMounts lets go of all mounts of the host, if this process has a mount
// namespace of its own: a server must not keep the namespace alive that its own mount is
// in, nor any mount that someone wants to take away. What it needs is open. An empty
// root stays, by which others see that the namespace has no other mount.
//
// Where it cannot be done (the host's root is the kernel's initial one), the mounts of that moment stay in use until the server ends.
func leaveMounts() {
	if len(os.Args) < 3 || os.Args[2] != ownMounts {
		return
	}
	const at = "/proc"
	if unix.Mount("plash", at, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=1") != nil {
		return
	}
	// The old root ends up on the new one (pivot_root(2)), for all threads.
	if unix.Chdir(at) == nil && unix.PivotRoot(".", ".") == nil {
		_ = unix.Unmount(".", unix.MNT_DETACH)
		_ = unix.Chdir("/")
	}
}

// closeInherited closes the descriptors that who started us has got from others and
// did not keep from us: a pipe that stays open makes its reader wait for us. The Go
// runtime may have descriptors already, for polling.
func closeInherited() error {
	const dir = "/proc/self/fd"
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < firstFD {
			continue
		}
		target, err := os.Readlink(filepath.Join(dir, name))
		if err == nil && !strings.HasPrefix(target, "anon_inode:") {
			unix.Close(fd)
		}
	}
	return nil
}
