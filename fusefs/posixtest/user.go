package posixtest

import (
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alone runs part of a case on a thread that has a working directory (the case's),
// a umask (022) and credentials of its own, and ends with it. Paths are relative, so
// that those above need not let anyone through.
func (e *env) alone(f func(e *env)) { e.onThread(unix.CLONE_FS, f) }

// stranger runs part of a case on a thread that shares no descriptors with this
// one: to the kernel's locks of fcntl(2) it is another process.
func (e *env) stranger(f func(e *env)) { e.onThread(unix.CLONE_FS|unix.CLONE_FILES, f) }

func (e *env) onThread(unshare int, f func(e *env)) {
	dir := e.dir
	own := &env{TB: e.TB, dir: ".", lower: e.lower, o: e.o}
	done := make(chan bool)
	go func() {
		returned := false
		defer func() { done <- returned }()
		goruntime.LockOSThread() // and never unlocked: the thread ends
		defer leave(unshare)
		defer own.end()
		own.check(unix.Unshare(unshare))
		own.check(unix.Chdir(dir))
		unix.Umask(0o022)
		f(own)
		returned = true
	}()
	if !<-done {
		goruntime.Goexit() // it has said why
	}
}

// leave lets go of the filesystem: the thread itself ends some time later.
func leave(unshare int) {
	_ = unix.Chdir("/")
	if unshare&unix.CLONE_FILES != 0 {
		_ = unix.CloseRange(3, 1<<32-1, 0) // copies of all of the process' descriptors
	}
}

// as runs part of a case as another user. In Linux credentials belong to threads.
func (e *env) as(uid, gid int, f func(e *env), groups ...uint32) {
	e.alone(func(e *env) {
		e.become(uid, gid, groups...)
		f(e)
	})
}

func (e *env) become(uid, gid int, groups ...uint32) {
	groups = append(groups, uint32(gid))
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		e.Fatalf("setgroups: %v", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		e.Fatalf("setresgid: %v", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		e.Fatalf("setresuid: %v", errno)
	}
}
