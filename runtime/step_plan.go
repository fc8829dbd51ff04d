package runtime

import (
	"errors"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/program"
)

// errAgain says that something in the plan of an init did not work, and that nothing was run.
var errAgain = errors.New("the plan did not work")

// planless tells that there was a plan that did not work: the next one would not either.
var planless atomic.Bool

// plan gives the init of a script the system calls to make, so that it does without starting
// Go, which takes longer than all of them: see package replay. It returns nil where there is
// anything to decide: [initConfig.start] does the same, and knows what to say.
func (s *step) plan() *os.File {
	c := &s.config
	if !replay.Early() || planless.Load() || s.options.Script == "" || c.HasScript || c.Emulate != nil || s.inCopy {
		return nil
	}
	var p recorder
	if !p.step(s) {
		return nil
	}
	text := p.Encode()
	if text == nil || p.err != nil {
		return nil
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), "plan")
	_, err = f.Write(text)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil
	}
	return f
}

// step makes the root of the container and spawns the command, as [initConfig.start] does. It
// tells whether that is all that there is to do.
func (p *recorder) step(s *step) bool {
	c := &s.config
	// The clone leaves the mount to another init, if there has to be one. Detached mounts can
	// be cloned since Linux 6.15.
	p.slave()
	root := p.CallKeep(unix.SYS_OPEN_TREE, replay.Number(rootFD), replay.String(""),
		replay.Number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH))
	var shared []sharedPlace
	for _, b := range c.Binds {
		found, ok := b.FindPlace(s.root.FD())
		switch {
		case !ok:
			return false
		case !found:
		case b.Path == "/proc":
			shared = append(shared, sharedPlace{b.Path, p.procfs()})
		default:
			shared = append(shared, sharedPlace{b.Path, p.cloneTree(b.HostPath())})
		}
	}
	p.Call(unix.SYS_MOVE_MOUNT, root.Arg(), replay.String(""), cwd(), replay.String(c.At), replay.Number(unix.MOVE_MOUNT_F_EMPTY_PATH))
	for _, sh := range shared {
		p.share(root, sh)
	}
	p.enter(root)
	p.Call(unix.SYS_UMASK, replay.Number(c.Umask))
	path, _ := program.LookupEnv(c.Env, "PATH")
	p.Spawn(path, c.Argv, c.Env)
	return true
}

// procfs makes a procfs of the pid namespace that it is made in.
func (p *recorder) procfs() replay.Slot {
	fs := p.CallKeep(unix.SYS_FSOPEN, replay.String("proc"), replay.Number(unix.FSOPEN_CLOEXEC))
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), replay.Number(unix.FSCONFIG_SET_STRING), replay.String("source"), replay.String("proc"), replay.Number(0))
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), replay.Number(unix.FSCONFIG_CMD_CREATE), replay.Number(0), replay.Number(0), replay.Number(0))
	return p.CallKeep(unix.SYS_FSMOUNT, fs.Arg(), replay.Number(unix.FSMOUNT_CLOEXEC),
		replay.Number(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC))
}

// A sharedPlace is a mount and where it goes in the container.
type sharedPlace struct {
	path  string
	mount replay.Slot
}

// cloneTree copies the mounts at a path.
func (p *recorder) cloneTree(path string) replay.Slot {
	return p.CallKeep(unix.SYS_OPEN_TREE, cwd(), replay.String(path),
		replay.Number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
}

// share puts a mount at its place in the container, as [share.Mount] does.
func (p *recorder) share(root replay.Slot, s sharedPlace) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	b := (*[unix.SizeofOpenHow]byte)(unsafe.Pointer(&how))
	at := p.CallKeep(unix.SYS_OPENAT2, root.Arg(), replay.String(s.path), replay.Bytes(b[:]), replay.Number(len(b)))
	p.Call(unix.SYS_MOVE_MOUNT, s.mount.Arg(), replay.String(""), at.Arg(), replay.String(""),
		replay.Number(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// enter is what [enterRoot] does.
func (p *recorder) enter(root replay.Slot) {
	p.Call(unix.SYS_FCHDIR, root.Arg())
	p.Call(unix.SYS_PIVOT_ROOT, replay.String("."), replay.String("."))
	p.Enter()
	p.Call(unix.SYS_UMOUNT2, replay.String("."), replay.Number(unix.MNT_DETACH))
	p.Call(unix.SYS_CHDIR, replay.String("/"))
}

// slave is what [makeSlave] does.
func (p *recorder) slave() {
	p.Call(unix.SYS_MOUNT, replay.String(""), replay.String("/"), replay.Number(0), replay.Number(unix.MS_REC|unix.MS_SLAVE), replay.Number(0))
}
