//go:build amd64 || arm64

package replay

import "unsafe"

// A server outlives who starts it. So it is to be nobody's child whom its parent could wait
// for, and in a session of its own: that takes a fork, which Go's runtime cannot do once
// it runs. Before, it costs a tenth of starting the program once more.

// detached is what Detached tells.
var detached bool

// Detached tells whether this process is a server that was detached before Go started, and
// has no descriptors but its own.
func Detached() bool { return detached }

// detach is for a program that was started as Detach. The parent ends; the child goes on as
// the server. If there can be no child, the program goes on as it was called.
func detach(args []string) {
	if len(args) != 3 || args[0] != Detach || args[2] != OwnMounts {
		return
	}
	child := fork()
	if failed(child) {
		return
	}
	if child != 0 {
		exit(0)
	}
	if !leave() {
		overwrite(args[2], "")
	}
	overwrite(args[0], Serve)
	detached = closeFrom(FirstFD)
}

// leave leaves session and mount namespace; the latter only a process with rights can.
func leave() bool {
	syscall6(sysSetsid, 0, 0, 0, 0, 0, 0)
	return !failed(syscall6(sysUnshare, cloneNewNS, 0, 0, 0, 0, 0))
}

// fork returns 0 in the child.
func fork() uintptr { return syscall6(sysClone, sigChld, 0, 0, 0, 0, 0) }

// closeFrom closes all descriptors from one on: close_range(2), since Linux 5.9.
func closeFrom(fd uintptr) bool {
	return !failed(syscall6(sysCloseRange, fd, ^uintptr(0)>>32, 0, 0, 0, 0))
}

func exit(code uintptr) { syscall6(sysExitGroup, code, 0, 0, 0, 0, 0) }

// overwrite puts a text in the place of an argument of the process, where ps(1) and package
// os will find it.
func overwrite(arg, with string) {
	b := unsafe.Slice(unsafe.StringData(arg), len(arg))
	clear(b)
	copy(b, with)
}
