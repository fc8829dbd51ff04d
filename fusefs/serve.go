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
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/fusefs/union"
	"github.com/ihucos/plash/replay"
)

// Names under which the program is started again: first to start the server, so that
// this is nobody's child whom its parent could wait for, and then to be it. Where package
// replay begins before Go does, it makes the second of the first.
const (
	starterName = replay.Detach
	serverName  = replay.Serve
)

// Descriptors of both.
const (
	configFD = 3 + iota // a serverConfig as JSON comes in
	socketFD            // the FUSE device comes in, a serverStatus as JSON goes out
	firstFD             // what is open from here on is not for the server: replay.FirstFD
)

// A serverConfig tells a server what to serve.
type serverConfig struct {
	Store       string
	Layers      []digest.Digest
	Places      []cas.Place
	Upper, Work string // "": read-only
	Volatile    bool
	Stacked     bool
	Source      string
	Awaited     bool // a command's start waits for what is asked first
}

// A serverStatus tells that the mount answers, or why it never will.
type serverStatus struct {
	Failure string `json:",omitempty"`
	Handles bool   // the kernel makes file handles, whatever we say
}

// MaybeServe is for the first line of main. In a process that [Open] started it
// serves the mount and does not return; else it does nothing.
func MaybeServe() {
	if s, ok := replay.Started(); ok {
		if serveStarted(s) != nil {
			os.Exit(1) // what the plan does next tells that the mount does not answer
		}
		os.Exit(0)
	}
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
	start := func(flags uintptr, mounts string) error {
		cmd := &exec.Cmd{
			Path: "/proc/self/exe", Args: []string{serverName, os.Args[1], mounts}, Env: []string{}, Dir: "/",
			Stderr:      os.Stderr,
			ExtraFiles:  []*os.File{os.NewFile(configFD, "config"), os.NewFile(socketFD, "socket")},
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Unshareflags: flags},
		}
		return cmd.Start()
	}
	err := start(unix.CLONE_NEWNS, replay.OwnMounts)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		err = start(0, "")
	}
	if err != nil {
		return fmt.Errorf("start FUSE server: %w", err)
	}
	return nil
}

// serve is the life of a server.
func serve(socket *os.File) error {
	ignoreSignals()
	if !replay.Detached() {
		if err := closeInherited(); err != nil {
			return fmt.Errorf("close what was inherited: %w", err)
		}
	}
	configFile := os.NewFile(configFD, "config")
	var config serverConfig
	if err := json.NewDecoder(configFile).Decode(&config); err != nil {
		return fmt.Errorf("read what to serve: %w", err)
	}
	if err := configFile.Close(); err != nil {
		return err
	}
	out, options := config.mountOptions()
	fs, closeFS, err := config.filesystem(out, options)
	if err != nil {
		return err
	}
	device, err := receiveFile(socket)
	if err != nil {
		return fmt.Errorf("wait for the mount: %w", err)
	}
	if len(os.Args) == 3 && os.Args[2] == replay.OwnMounts {
		leaveMounts()
	}
	server, err := fuse.NewServer(fs, fuseFD(device), options)
	if err != nil {
		return fmt.Errorf("serve FUSE: %w", err)
	}
	sparePs()
	status := serverStatus{Handles: server.KernelSettings().Flags64()&fuse.CAP_NO_EXPORT_SUPPORT == 0}
	if err := json.NewEncoder(socket).Encode(status); err != nil {
		return fmt.Errorf("tell that the mount answers: %w", err)
	}
	if err := socket.Close(); err != nil {
		return err
	}
	server.Serve()
	return closeFS()
}

// sparePs lets Go run more threads than there are CPUs: go-fuse has one more of them wait for
// requests than that, and one whose place to run (a "P" of Go's scheduler) is taken by
// another that waits has to be woken for a second time when its request is there. Unpacking
// a tar made a third of the futex(2) calls that it made without.
func sparePs() { goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + 2) }

// serveStarted is the life of a server that a plan has started. The device is mounted
// already, and someone waits for its first answer.
func serveStarted(s *replay.Server) error {
	ignoreSignals()
	var config serverConfig
	if err := json.Unmarshal(s.Config, &config); err != nil {
		return err
	}
	out, options := config.mountOptions()
	fs, closeFS, err := config.filesystem(out, options)
	if err != nil {
		return err
	}
	begun := time.Now()
	if s.Lock >= 0 {
		if err := unix.Close(s.Lock); err != nil {
			return err
		}
	}
	server, err := serverOf(s, fs, options, begun)
	if err != nil || server == nil {
		return errors.Join(err, closeFS())
	}
	time.AfterFunc(time.Until(begun.Add(settleAfter)), func() {
		sparePs()
		if s.OwnMounts {
			leaveMounts()
		}
	})
	server.Serve()
	return closeFS()
}

// ignoreSignals has a terminal, and who ends all of a session, leave this process alone.
func ignoreSignals() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP)
}

// gcPercent lets a server collect garbage when there is half as much of it as of the rest.
const gcPercent = 50

// fuseFD is how package fuse is told to take a device that is open and mounted.
func fuseFD(device int) string { return "/dev/fd/" + strconv.Itoa(device) }

// filesystem makes what is served. Its close ends what it does in the upper directory.
func (c *serverConfig) filesystem(out io.Writer, o *fuse.MountOptions) (fs fuse.RawFileSystem, closeFS func() error, err error) {
	store, err := cas.Open(c.Store)
	if err != nil {
		return nil, nil, err
	}
	view, err := c.view(store)
	if err != nil {
		return nil, nil, err
	}
	view.MapOwners(presentOwners())
	defer func() {
		if err != nil {
			err = errors.Join(err, view.Close())
		}
	}()
	if c.Upper != "" {
		u, err := union.New(view, union.Options{Upper: c.Upper, Work: c.Work, Volatile: c.Volatile})
		if err != nil {
			return nil, nil, err
		}
		u.Configure(o)
		memory := &memoryLimit{unload: view.Unload}
		debug.SetGCPercent(gcPercent)
		memory.start()
		return limitedUnion{u, memory}, u.Close, nil
	}
	r, err := newFilesystem(view, out)
	if err != nil {
		return nil, nil, err
	}
	if c.Awaited {
		r.pusher.until = time.Now().Add(settleAfter)
	}
	time.AfterFunc(settleAfter, func() {
		r.memory.start()
		debug.SetGCPercent(gcPercent)
		// Requests leave little garbage, but buffers of maxRequest bytes.
		debug.SetMemoryLimit(maxMapped)
	})
	o.RememberInodes = true // there is nothing to forget
	o.EnableSymlinkCaching, o.ExplicitDataCacheControl = true, true
	// With access control lists, the kernel asks for one of every file that another than its
	// owner opens. But overlayfs sets none where the layer below knows none.
	_, acls := r.image.MayHaveXattrs()
	o.EnableAcl = acls || c.Stacked
	// Without handles (since Linux 6.8): overlayfs would look up by them what the kernel
	// has forgotten, and get ESTALE.
	o.ExtraCapabilities = fuse.CAP_ASYNC_DIO | fuse.CAP_NO_EXPORT_SUPPORT
	return r, func() error { return nil }, nil
}

func (c *serverConfig) view(store *cas.Store) (*cas.View, error) {
	if len(c.Places) > 0 {
		return store.ViewOver(context.Background(), c.Places, c.Layers)
	}
	return store.View(context.Background(), c.Layers)
}

// mountOptions are what the kernel is told at first (INIT), whatever is served, and
// where damage is told.
func (c *serverConfig) mountOptions() (io.Writer, *fuse.MountOptions) {
	out := &logger{out: os.Stderr, prefix: strings.TrimSpace("plash: " + c.Source)}
	return out, &fuse.MountOptions{
		MaxWrite: maxRequest, MaxBackground: 64, CongestionThreshold: 64,
		DisableSplice: true, // it is slower, and wants /dev/null
		Logger:        log.New(out, "", 0),
		PanicHandler: func(what any) fuse.Status {
			fmt.Fprintf(out, "a mistake in plash: %v\n", what)
			return fuse.EIO
		},
	}
}

// leaveMounts lets go of all mounts of the host, for a process that has a mount
// namespace of its own: a server must not keep the namespace alive that its own mount is
// in, nor any mount that someone wants to take away. What it needs is open, but for
// /proc, which is all that its new root has.
func leaveMounts() {
	if enterProc() != nil {
		return // the mounts of the host are kept busy, but served is what was asked for
	}
	// pivot_root(2), NOTES: the old root lies on top of the new one.
	_ = unix.Unmount(".", unix.MNT_DETACH)
}

// enterProc makes a new tmpfs the root and the working directory, with /proc in it.
func enterProc() error {
	c, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.FsconfigCreate(c); err != nil {
		return err
	}
	root, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	proc, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	if err := unix.Mkdirat(root, "proc", 0o555); err != nil {
		return err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.MoveMount(proc, "", root, "proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	return unix.PivotRoot(".", ".")
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
		// The limit of the cgroup is the Go runtime's too, which goes on reading it by number.
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			unix.Close(fd)
		}
	}
	return nil
}
