package posixtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An env is what a case works with: a directory of its own, and a word for each
// common step, which ends the case if it fails.
type env struct {
	testing.TB
	dir   string
	lower bool // the case's files are those of the lower layer
	o     *Options
	fds   []int
}

// begin makes the case's directory.
func (e *env) begin() {
	e.check(os.Mkdir(e.dir, 0o755))
}

// end closes what the case has left open.
func (e *env) end() {
	for _, fd := range e.fds {
		_ = unix.Close(fd) // it is for its side effects that a case closes one
	}
	e.fds = nil
}

func (e *env) check(err error) {
	if err != nil {
		e.Fatal(err)
	}
}

// fails wants an error to be one of those given.
func (e *env) fails(what string, err error, want ...error) {
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	if len(want) == 1 {
		e.Errorf("%s: %v, want %v", what, err, want[0])
		return
	}
	e.Errorf("%s: %v, want one of %v", what, err, want)
}

func equal[T comparable](e *env, what string, got, want T) {
	if got != want {
		g, w := any(got), any(want)
		if s, ok := w.(string); ok && len(s) > 100 {
			e.Errorf("%s is another: %d bytes, want %d", what, len(g.(string)), len(s))
			return
		}
		e.Errorf("%s is %#v, want %#v", what, g, w)
	}
}

func (e *env) at(name string) string { return filepath.Join(e.dir, name) }

// write makes a file, or gives it another content.
func (e *env) write(name, content string) {
	e.check(os.WriteFile(e.at(name), []byte(content), 0o644))
}

func (e *env) content(name, want string) {
	var st unix.Stat_t
	if e.check(unix.Stat(e.at(name), &st)); st.Size > int64(len(want))+1<<20 {
		e.Fatalf("size of %s is %d, want %d", name, st.Size, len(want)) // too large to read
	}
	b, err := os.ReadFile(e.at(name))
	e.check(err)
	equal(e, "content of "+name, string(b), want)
}

func (e *env) mkdir(names ...string) {
	for _, name := range names {
		e.check(os.Mkdir(e.at(name), 0o755))
	}
}

func (e *env) symlink(target, name string) { e.check(os.Symlink(target, e.at(name))) }
func (e *env) link(from, to string)        { e.check(os.Link(e.at(from), e.at(to))) }
func (e *env) remove(name string)          { e.check(os.Remove(e.at(name))) }
func (e *env) chmod(name string, mode uint32) {
	e.check(unix.Chmod(e.at(name), mode))
}

func (e *env) chown(name string, uid, gid int) { e.check(os.Lchown(e.at(name), uid, gid)) }

// rename is rename(2), which os.Rename is not for directories.
func (e *env) rename(from, to string) {
	if err := unix.Rename(e.at(from), e.at(to)); err != nil {
		e.Fatalf("rename %s to %s: %v", from, to, err)
	}
}

// absent wants a name not to be there.
func (e *env) absent(name string) {
	var st unix.Stat_t
	e.fails("lstat "+name, unix.Lstat(e.at(name), &st), fs.ErrNotExist)
}

// names wants a directory to have these entries.
func (e *env) names(dir string, want ...string) {
	entries, err := os.ReadDir(e.at(dir))
	e.check(err)
	got := make([]string, len(entries))
	for i, entry := range entries {
		got[i] = entry.Name()
	}
	want = slices.Sorted(slices.Values(want))
	equal(e, "list of "+dir, strings.Join(got, "|"), strings.Join(want, "|"))
}

func (e *env) open(name string, flags int) int { return e.openMode(name, flags, 0o644) }

func (e *env) openMode(name string, flags int, mode uint32) int {
	fd, err := unix.Open(e.at(name), flags|unix.O_CLOEXEC, mode)
	if err != nil {
		e.Fatalf("open %s with flags %#x: %v", name, flags, err)
	}
	e.fds = append(e.fds, fd)
	return fd
}

func (e *env) openFails(name string, flags int, want ...error) {
	fd, err := unix.Open(e.at(name), flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		_ = unix.Close(fd)
	}
	e.fails("open "+name, err, want...)
}

func (e *env) close(fd int) {
	e.fds = slices.DeleteFunc(e.fds, func(other int) bool { return other == fd })
	e.check(unix.Close(fd))
}

// stat is lstat(2).
func (e *env) stat(name string) unix.Stat_t {
	var st unix.Stat_t
	if err := unix.Lstat(e.at(name), &st); err != nil {
		e.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

func (e *env) fstat(fd int) unix.Stat_t {
	var st unix.Stat_t
	e.check(unix.Fstat(fd, &st))
	return st
}

// mode wants permission bits.
func (e *env) mode(name string, want uint32) {
	if got := e.stat(name).Mode & 0o7777; got != want {
		e.Errorf("mode of %s is %04o, want %04o", name, got, want)
	}
}

func (e *env) owner(name string, uid, gid uint32) {
	st := e.stat(name)
	if st.Uid != uid || st.Gid != gid {
		e.Errorf("owner of %s is %d:%d, want %d:%d", name, st.Uid, st.Gid, uid, gid)
	}
}

func (e *env) size(name string, want int64) { equal(e, "size of "+name, e.stat(name).Size, want) }

func (e *env) put(fd int, content string) {
	n, err := unix.Write(fd, []byte(content))
	e.check(err)
	equal(e, "number of bytes written", n, len(content))
}

func (e *env) pwrite(fd int, content string, off int64) {
	n, err := unix.Pwrite(fd, []byte(content), off)
	e.check(err)
	equal(e, "number of bytes written", n, len(content))
}

// pread reads up to n bytes.
func (e *env) pread(fd, n int, off int64) string {
	b := make([]byte, n)
	n, err := unix.Pread(fd, b, off)
	e.check(err)
	return string(b[:n])
}

// pattern is n bytes in which no two places look alike.
func pattern(n int) string {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = append(b, byte(i>>16), byte(i>>8), byte(i), '.')
	}
	return string(b[:n])
}

func zeros(n int) string { return string(make([]byte, n)) }

// aging is a time in which the clock of any filesystem goes on.
const aging = 12 * time.Millisecond

// longAgo is when files have been changed whose times a case looks at.
var longAgo = unix.Timespec{Sec: 1e9, Nsec: 123456789}

func (e *env) age(names ...string) {
	for _, name := range names {
		e.check(unix.UtimesNanoAt(unix.AT_FDCWD, e.at(name), []unix.Timespec{longAgo, longAgo}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
