package runtime

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
)

// sameUser demands that the caller is who he is now, and has no capabilities: who has some
// gets other namespaces, or needs none.
func (p *recorder) sameUser() {
	// The plan's file says who the user is.
	p.CallExpect(unix.Getgid(), unix.SYS_GETGID)
	p.CallExpect(unix.Getegid(), unix.SYS_GETEGID)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	b := (*[unsafe.Sizeof(header)]byte)(unsafe.Pointer(&header))
	p.Call(unix.SYS_CAPGET, replay.Bytes(b[:]), replay.Buffer())
	var none [2]unix.CapUserData
	p.Compare(0, (*[unsafe.Sizeof(none)]byte)(unsafe.Pointer(&none))[:])
}

// userNamespace makes the namespaces that a stage begins in, see [ids.For]. That there can
// be some is the last that is demanded; who is in them does not come back.
func (p *recorder) userNamespace() {
	p.Call(unix.SYS_UNSHARE, replay.Number(unix.CLONE_NEWUSER|unix.CLONE_NEWNS))
	p.Commit()
	uid, gid := unix.Getuid(), unix.Getgid()
	p.write("/proc/self/setgroups", "deny")
	p.write("/proc/self/uid_map", fmt.Sprintf("%d %d 1", uid, uid))
	p.write("/proc/self/gid_map", fmt.Sprintf("%d %d 1", gid, gid))
}

func (p *recorder) write(path, text string) {
	p.CallExpect(len(text), unix.SYS_WRITE, p.open(path, unix.O_WRONLY).Arg(), replay.String(text), replay.Number(len(text)))
}
