package posixtest

import (
	"time"

	"golang.org/x/sys/unix"
)

// Of fcntl(2), since Linux 3.15: locks of an open file, not of a process.
const (
	ofdGetLk = 36
	ofdSetLk = 37
)

func lockCases() []testCase {
	file := func(e *env) { e.write("file", "content") }
	flock := func(fd, how int) error { return unix.Flock(fd, how|unix.LOCK_NB) }
	lock := func(fd, cmd int, typ int16, start, n int64) error {
		return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: typ, Start: start, Len: n})
	}
	return []testCase{
		{name: "flock", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDONLY), e.open("file", unix.O_RDWR)
			e.check(flock(a, unix.LOCK_EX))
			e.fails("shared lock of a locked file", flock(b, unix.LOCK_SH), unix.EWOULDBLOCK)
			e.check(flock(a, unix.LOCK_SH))
			e.check(flock(b, unix.LOCK_SH))
			e.fails("upgrade of one of two", flock(a, unix.LOCK_EX), unix.EWOULDBLOCK)
			e.check(flock(b, unix.LOCK_UN))
			e.check(flock(a, unix.LOCK_EX))
			e.close(a)
			e.check(flock(b, unix.LOCK_EX))
		}},
		{name: "flock over copy-up", make: file, run: func(e *env) {
			a := e.open("file", unix.O_RDONLY)
			e.check(flock(a, unix.LOCK_EX))
			b := e.open("file", unix.O_RDWR)
			e.pwrite(b, "x", 0)
			e.fails("lock of a locked file", flock(b, unix.LOCK_EX), unix.EWOULDBLOCK)
			e.rename("file", "moved")
			e.fails("lock of a moved file", flock(e.open("moved", unix.O_RDONLY), unix.LOCK_SH), unix.EWOULDBLOCK)
			e.close(a)
			e.check(flock(b, unix.LOCK_EX))
		}},
		{name: "flock of a directory", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			a, b := e.open("dir", unix.O_RDONLY), e.open("dir", unix.O_RDONLY)
			e.check(flock(a, unix.LOCK_EX))
			e.write("dir/file", "")
			e.fails("lock of a locked directory", flock(b, unix.LOCK_EX), unix.EWOULDBLOCK)
		}},
		{name: "flock, waiting", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDONLY), e.open("file", unix.O_RDONLY)
			e.check(flock(a, unix.LOCK_EX))
			done := make(chan error, 1)
			go func() { done <- unix.Flock(b, unix.LOCK_EX) }()
			select {
			case err := <-done:
				e.Fatalf("locked twice: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			e.check(flock(a, unix.LOCK_UN))
			e.check(<-done)
		}},
		{name: "fcntl", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.check(lock(fd, unix.F_SETLK, unix.F_WRLCK, 10, 10))
			e.stranger(func(e *env) {
				other := e.open("file", unix.O_RDWR)
				e.fails("write lock of a part", lock(other, unix.F_SETLK, unix.F_WRLCK, 15, 1), unix.EAGAIN, unix.EACCES)
				e.fails("read lock of all", lock(other, unix.F_SETLK, unix.F_RDLCK, 0, 0), unix.EAGAIN, unix.EACCES)
				e.check(lock(other, unix.F_SETLK, unix.F_WRLCK, 20, 0))
				e.check(lock(other, unix.F_SETLK, unix.F_WRLCK, 0, 10))
				got := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 0}
				e.check(unix.FcntlFlock(uintptr(other), unix.F_GETLK, &got))
				equal(e, "type of the lock in the way", got.Type, unix.F_WRLCK)
				equal(e, "its start", got.Start, 10)
				equal(e, "its length", got.Len, 10)
			})
			// The other's are gone with it.
			e.check(lock(fd, unix.F_SETLK, unix.F_WRLCK, 0, 0))
			e.check(lock(fd, unix.F_SETLK, unix.F_UNLCK, 5, 5))
			e.stranger(func(e *env) {
				other := e.open("file", unix.O_RDWR)
				e.check(lock(other, unix.F_SETLK, unix.F_WRLCK, 5, 5))
				e.fails("next to it", lock(other, unix.F_SETLK, unix.F_WRLCK, 10, 1), unix.EAGAIN, unix.EACCES)
			})
		}},
		{name: "fcntl and close", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDWR), e.open("file", unix.O_RDWR)
			e.check(lock(a, unix.F_SETLK, unix.F_WRLCK, 0, 0))
			e.check(lock(b, unix.F_SETLK, unix.F_WRLCK, 0, 0)) // the same process
			e.close(b)                                         // which gives up all of its locks
			e.stranger(func(e *env) {
				e.check(lock(e.open("file", unix.O_RDWR), unix.F_SETLK, unix.F_WRLCK, 0, 0))
			})
		}},
		{name: "fcntl over copy-up", make: file, run: func(e *env) {
			a := e.open("file", unix.O_RDONLY)
			e.check(lock(a, unix.F_SETLK, unix.F_RDLCK, 0, 0))
			e.stranger(func(e *env) {
				b := e.open("file", unix.O_RDWR)
				e.pwrite(b, "x", 0)
				e.fails("write lock of a locked file", lock(b, unix.F_SETLK, unix.F_WRLCK, 0, 0), unix.EAGAIN, unix.EACCES)
			})
		}},
		{name: "fcntl, waiting", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.check(lock(fd, unix.F_SETLK, unix.F_WRLCK, 0, 0))
			done := make(chan bool, 1)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				e.stranger(func(e *env) {
					e.check(lock(e.open("file", unix.O_RDWR), unix.F_SETLKW, unix.F_WRLCK, 0, 0))
					done <- true
				})
			}()
			select {
			case <-done:
				e.Error("locked twice")
			case <-time.After(20 * time.Millisecond):
			}
			e.check(lock(fd, unix.F_SETLK, unix.F_UNLCK, 0, 0))
			<-ended
		}},
		{name: "fcntl needs the direction", make: file, run: func(e *env) {
			e.fails("write lock of a reader", lock(e.open("file", unix.O_RDONLY), unix.F_SETLK, unix.F_WRLCK, 0, 0), unix.EBADF)
			e.fails("read lock of a writer", lock(e.open("file", unix.O_WRONLY), unix.F_SETLK, unix.F_RDLCK, 0, 0), unix.EBADF)
		}},
		{name: "open file description", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDWR), e.open("file", unix.O_RDWR)
			e.check(lock(a, ofdSetLk, unix.F_WRLCK, 0, 10))
			e.fails("lock of a locked range", lock(b, ofdSetLk, unix.F_WRLCK, 5, 1), unix.EAGAIN, unix.EACCES)
			got := unix.Flock_t{Type: unix.F_WRLCK}
			e.check(unix.FcntlFlock(uintptr(b), ofdGetLk, &got))
			equal(e, "type of the lock in the way", got.Type, unix.F_WRLCK)
			e.check(lock(b, ofdSetLk, unix.F_WRLCK, 10, 1))
			e.close(a)
			e.check(lock(b, ofdSetLk, unix.F_WRLCK, 0, 0))
		}},
		{name: "far away", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDWR), e.open("file", unix.O_RDWR)
			e.check(lock(a, ofdSetLk, unix.F_WRLCK, 1<<40, 1<<40))
			e.fails("lock of a locked range", lock(b, ofdSetLk, unix.F_WRLCK, 1<<41-1, 1), unix.EAGAIN, unix.EACCES)
			e.check(lock(b, ofdSetLk, unix.F_WRLCK, 1<<41, 0))
		}},
	}
}
