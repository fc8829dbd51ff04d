package union

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An op does something in a directory and tells what it saw. It is done in a directory
// of ext4, and in the union on what is in the layers and on what is not.
type op struct {
	name string
	do   func(d dirOf) error
}

// A dirOf is the directory that an op works in.
type dirOf struct {
	dir string
	out *strings.Builder
}

func (d dirOf) at(name string) string { return filepath.Join(d.dir, name) }

func (d dirOf) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// stat says all of a file that does not depend on the filesystem.
func (d dirOf) stat(name string) {
	var st unix.Stat_t
	if err := unix.Lstat(d.at(name), &st); err != nil {
		d.say("%s: %v", name, err)
		return
	}
	links, size := st.Nlink, st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		links, size = 0, 0
	}
	d.say("%s: %o %d:%d links=%d size=%d", name, st.Mode, st.Uid, st.Gid, links, size)
}

func (d dirOf) cat(name string) {
	b, err := os.ReadFile(d.at(name))
	if len(b) > 100 {
		d.say("%s: %d bytes, sum %d, %v", name, len(b), sum(b), errno(err))
		return
	}
	d.say("%s: %q %v", name, b, errno(err))
}

func sum(b []byte) (s uint64) {
	for i, c := range b {
		s += uint64(c) * uint64(i+1)
	}
	return s
}

func errno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// as does something as another user, with a umask of its own.
func as(uid, gid, umask int, groups []uint32, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			unix.Umask(umask)
			var list *uint32
			if len(groups) > 0 {
				list = &groups[0]
			}
			for _, call := range [][4]uintptr{
				{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
				{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
			} {
				if call[0] == unix.SYS_SETRESGID {
					if err := setgroups(groups, list); err != nil {
						return err
					}
				}
				if _, _, e := unix.RawSyscall(call[0], call[1], call[2], call[3]); e != 0 {
					return e
				}
			}
			return f()
		}()
	}()
	return <-done
}

// prepareOps makes what the ops find.
func prepareOps(tb testing.TB, dir string) {
	file := func(name, content string, mode os.FileMode) {
		must(tb, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		must(tb, os.Chmod(filepath.Join(dir, name), mode))
	}
	mkdir := func(name string, mode os.FileMode) {
		must(tb, os.Mkdir(filepath.Join(dir, name), 0o755))
		must(tb, os.Chmod(filepath.Join(dir, name), mode))
	}
	must(tb, os.Chmod(dir, 0o755))
	file("file", "content of file\n", 0o644)
	file("private", "secret\n", 0o600)
	file("suid", "program\n", 0o755|os.ModeSetuid|os.ModeSetgid)
	file("sgid", "program\n", 0o755|os.ModeSetgid)
	file("world", "everyone\n", 0o666)
	file("big", strings.Repeat("0123456789abcdef", 20000), 0o644)
	file("linked", "two names\n", 0o644)
	must(tb, os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "linked2")))
	must(tb, os.Symlink("file", filepath.Join(dir, "sym")))
	must(tb, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	mkdir("dir", 0o755)
	file("dir/a", "a", 0o644)
	file("dir/b", "b", 0o644)
	must(tb, os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "dir/linked3")))
	mkdir("empty", 0o755)
	mkdir("full", 0o755)
	file("full/x", "x", 0o644)
	mkdir("sticky", 0o777|os.ModeSticky)
	file("sticky/root", "root's", 0o666)
	mkdir("open", 0o777)
	mkdir("group", 0o777|os.ModeSetgid)
	must(tb, os.Chown(filepath.Join(dir, "group"), 0, 5000))
	must(tb, os.Chmod(filepath.Join(dir, "group"), 0o777|os.ModeSetgid))
	mkdir("many", 0o755)
	for i := range 150 {
		file(fmt.Sprintf("many/%03d", i), "", 0o644)
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(tb, err)
	must(tb, f.Truncate(1<<20))
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 8192), 256<<10)
	must(tb, errors.Join(err, f.Close()))
	must(tb, unix.Setxattr(filepath.Join(dir, "file"), "user.x", []byte("value"), 0))
}

func TestOps(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		if testing.Short() && o != (Options{}) {
			return // one after the other, they do not race
		}
		lower := t.TempDir()
		prepareOps(t, lower)
		for _, op := range slices.Concat(fileOps, nameOps, userOps) {
			t.Run(op.name, func(t *testing.T) {
				plain := filepath.Join(t.TempDir(), "plain")
				must(t, os.Mkdir(plain, 0o755))
				prepareOps(t, plain)
				must(t, os.Chmod(filepath.Dir(plain), 0o755))
				must(t, os.Chmod(filepath.Dir(filepath.Dir(plain)), 0o755))
				run := func(dir string) string {
					var out strings.Builder
					if err := op.do(dirOf{dir, &out}); err != nil {
						fmt.Fprintf(&out, "error: %v\n", errno(err))
					}
					return out.String()
				}
				want := run(plain)
				m := newUnion(t, lower, o)
				openWay(t, m.dir)
				if got := run(m.dir); got != want {
					t.Errorf("on the layers: got\n%s\nwant\n%s", got, want)
				}
				same(t, "the tree", dumpOld(t, plain), dumpOld(t, m.dir))
				m.remount()
				same(t, "the tree mounted again", dumpOld(t, plain), dumpOld(t, m.dir))
				fresh := newUnion(t, "", o)
				prepareOps(t, fresh.dir)
				openWay(t, fresh.dir)
				if got := run(fresh.dir); got != want {
					t.Errorf("on new files: got\n%s\nwant\n%s", got, want)
				}
				same(t, "the new tree", dumpOld(t, plain), dumpOld(t, fresh.dir))
			})
		}
	})
}

// openWay lets other users get to a directory of a test.
func openWay(tb testing.TB, dir string) {
	for dir = filepath.Dir(dir); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(tb, os.Chmod(dir, 0o755))
	}
}

// TestOpsAsUser has an ordinary user serve the union, on which that user works.
func TestOpsAsUser(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("does one thing after the other, which cannot race")
	}
	const uid = 1000
	give := func(dir string) {
		must(t, exec.Command("chown", "-hR", fmt.Sprintf("%d:%d", uid, uid), dir).Run())
		openWay(t, dir)
	}
	lower := t.TempDir()
	prepareOps(t, lower)
	give(lower)
	for _, op := range slices.Concat(fileOps, nameOps) {
		for _, opts := range []string{"", "xattr"} {
			t.Run(op.name+" "+opts, func(t *testing.T) {
				plain := filepath.Join(t.TempDir(), "plain")
				must(t, os.Mkdir(plain, 0o755))
				prepareOps(t, plain)
				give(plain)
				run := func(dir string) string {
					var out strings.Builder
					err := as(uid, uid, 0o022, nil, func() error { return op.do(dirOf{dir, &out}) })
					if err != nil {
						fmt.Fprintf(&out, "error: %v\n", errno(err))
					}
					return out.String()
				}
				want := run(plain)
				m := newUnion(t, lower, Options{XattrMarks: opts != ""})
				m.unmount()
				give(filepath.Dir(m.dir))
				openWay(t, m.store.Dir()+"/x")
				m.user = uid
				m.mount()
				if got := run(m.dir); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				same(t, "the tree", dumpOld(t, plain), dumpOld(t, m.dir))
			})
		}
	}
}

var fileOps = []op{
	{"write", func(d dirOf) error {
		f, err := os.OpenFile(d.at("file"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("CON"), 0)
		d.cat("file")
		d.stat("file")
		return err
	}},
	{"append", func(d dirOf) error {
		f, err := os.OpenFile(d.at("file"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		g, err := os.OpenFile(d.at("file"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer g.Close()
		for i := range 10 {
			fmt.Fprintf(f, "f%d", i)
			fmt.Fprintf(g, "g%d", i)
		}
		d.cat("file")
		d.stat("file")
		return nil
	}},
	{"truncating open", func(d dirOf) error {
		f, err := os.OpenFile(d.at("big"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		d.stat("big")
		_, err = f.Write([]byte("new"))
		d.cat("big")
		return err
	}},
	{"truncate", func(d dirOf) error {
		for _, n := range []int64{5000, 100000, 10, 0, 4096} {
			if err := os.Truncate(d.at("big"), n); err != nil {
				return err
			}
			d.cat("big")
			d.stat("big")
		}
		return nil
	}},
	{"reader before writer", func(d dirOf) error {
		r, err := os.Open(d.at("big"))
		if err != nil {
			return err
		}
		defer r.Close()
		b := make([]byte, 16)
		_, _ = r.ReadAt(b, 0)
		w, err := os.OpenFile(d.at("big"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer w.Close()
		for _, off := range []int64{0, 100000, 319990} {
			if _, err := w.WriteAt([]byte("written later"), off); err != nil {
				return err
			}
			n, err := r.ReadAt(b, off)
			d.say("%d %q %v", n, b[:n], err)
		}
		d.say("%v", w.Truncate(10))
		n, err := r.ReadAt(b, 0)
		d.say("%d %q %v", n, b[:n], err)
		return nil
	}},
	{"open and unlinked", func(d dirOf) error {
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR} {
			for _, name := range []string{"file", "big", "linked"} {
				f, err := os.OpenFile(d.at(name), flag, 0)
				if err != nil {
					d.say("%v", errno(err))
					continue
				}
				d.say("%v", os.Remove(d.at(name)))
				_, err = f.WriteAt([]byte("gone"), 2)
				d.say("write: %v", errno(err))
				b := make([]byte, 10)
				n, err := f.ReadAt(b, 0)
				d.say("%q %v", b[:n], err)
				var st unix.Stat_t
				err = unix.Fstat(int(f.Fd()), &st)
				d.say("%v links=%d size=%d", err, st.Nlink, st.Size)
				d.say("chmod %v", f.Chmod(0o600))
				err = unix.Fstat(int(f.Fd()), &st)
				d.say("%v %o links=%d", err, st.Mode, st.Nlink)
				d.stat(name)
				d.say("%v", f.Close())
			}
			d.stat("linked2")
		}
		return nil
	}},
	{"mmap", func(d dirOf) error {
		r, err := os.Open(d.at("big"))
		if err != nil {
			return err
		}
		defer r.Close()
		before, err := unix.Mmap(int(r.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer unix.Munmap(before)
		d.say("%q", before[:8])
		f, err := os.OpenFile(d.at("big"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[4000:], strings.Repeat("mapped", 50))
		d.say("%q", before[4000:4010])
		d.say("%v", unix.Msync(m, unix.MS_SYNC))
		b := make([]byte, 20)
		_, err = f.ReadAt(b, 4000)
		d.say("%q %v", b, err)
		_, err = f.WriteAt([]byte("through write"), 100)
		d.say("%q %v", m[100:113], err)
		d.say("%v", unix.Munmap(m))
		d.cat("big")
		return nil
	}},
	{"fallocate", func(d dirOf) error {
		f, err := os.OpenFile(d.at("big"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		fd := int(f.Fd())
		d.say("%v", unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
		d.stat("big")
		d.say("%v", unix.Fallocate(fd, 0, 0, 500000))
		d.stat("big")
		d.say("%v", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 8192))
		d.say("%v", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 100, 50))
		d.cat("big")
		return nil
	}},
	{"holes", func(d dirOf) error {
		f, err := os.Open(d.at("sparse"))
		if err != nil {
			return err
		}
		defer f.Close()
		seek := func() {
			for _, w := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
				for _, off := range []int64{0, 256 << 10, 256<<10 + 100, 300 << 10, 1<<20 - 1, 1 << 20, 2 << 20} {
					n, err := unix.Seek(int(f.Fd()), off, w)
					d.say("%d %d: %d %v", w, off, n, err)
				}
			}
		}
		seek()
		w, err := os.OpenFile(d.at("sparse"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer w.Close()
		_, err = w.WriteAt(make([]byte, 4096), 512<<10)
		d.say("%v", w.Sync())
		seek()
		return err
	}},
	{"copy_file_range", func(d dirOf) error {
		for _, c := range [][2]string{{"big", "file"}, {"file", "sparse"}, {"sparse", "new"}} {
			from, err := os.Open(d.at(c[0]))
			if err != nil {
				return err
			}
			defer from.Close()
			to, err := os.OpenFile(d.at(c[1]), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			defer to.Close()
			a, b := int64(3), int64(10)
			n, err := unix.CopyFileRange(int(from.Fd()), &a, int(to.Fd()), &b, 9000, 0)
			d.say("%d %v", n, err)
			d.cat(c[1])
		}
		return nil
	}},
	{"locks", func(d dirOf) error {
		a, err := os.OpenFile(d.at("file"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := os.Open(d.at("file"))
		if err != nil {
			return err
		}
		defer b.Close()
		d.say("%v", unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		d.say("%v", unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB))
		d.say("%v", unix.Flock(int(a.Fd()), unix.LOCK_UN))
		d.say("%v", unix.Flock(int(b.Fd()), unix.LOCK_SH|unix.LOCK_NB))
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: 5, Len: 10}
		d.say("%v", unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &l))
		r := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: 0, Len: 100}
		d.say("%v", unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &r))
		return nil
	}},
	{"attributes", func(d dirOf) error {
		list := func(name string) {
			b := make([]byte, 1000)
			n, err := unix.Llistxattr(d.at(name), b)
			names := strings.Split(strings.TrimRight(string(b[:max(n, 0)]), "\x00"), "\x00")
			slices.Sort(names)
			d.say("%q %v", names, err)
		}
		list("file")
		for _, name := range []string{"file", "dir", "private"} {
			d.say("%v", unix.Lsetxattr(d.at(name), "user.y", []byte("why"), 0))
			d.say("%v", unix.Lsetxattr(d.at(name), "user.y", []byte("why"), unix.XATTR_CREATE))
			d.say("%v", unix.Lsetxattr(d.at(name), "user.z", []byte("why"), unix.XATTR_REPLACE))
			d.say("%v", unix.Lsetxattr(d.at(name), "trusted.t", []byte("t"), 0))
			list(name)
			b := make([]byte, 2)
			n, err := unix.Lgetxattr(d.at(name), "user.y", b)
			d.say("%d %v", n, err)
			n, err = unix.Lgetxattr(d.at(name), "user.y", nil)
			d.say("%d %v", n, err)
		}
		d.say("%v", unix.Lremovexattr(d.at("file"), "user.x"))
		d.say("%v", unix.Lremovexattr(d.at("file"), "user.x"))
		list("file")
		d.say("%v", unix.Lsetxattr(d.at("sym"), "user.x", []byte("x"), 0))
		d.say("%v", as(1000, 1000, 0, nil, func() error { list("file"); return nil }))
		return nil
	}},
	{"times", func(d dirOf) error {
		ts := []unix.Timespec{{Sec: 5, Nsec: 123456789}, {Sec: -7, Nsec: 987654321}}
		for _, name := range []string{"file", "dir", "sym", "fifo"} {
			d.say("%v", unix.UtimesNanoAt(unix.AT_FDCWD, d.at(name), ts, unix.AT_SYMLINK_NOFOLLOW))
			var st unix.Stat_t
			d.say("%v", unix.Lstat(d.at(name), &st))
			d.say("%v %v", st.Atim, st.Mtim)
			if _, err := os.ReadFile(d.at("file")); err != nil {
				return err
			}
		}
		return nil
	}},
	{"statx", func(d dirOf) error {
		for _, name := range []string{"file", "dir", "sym"} {
			var st unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, d.at(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
			d.say("%v %o %d:%d %d", err, st.Mode, st.Uid, st.Gid, st.Mask&unix.STATX_BASIC_STATS)
		}
		return nil
	}},
	{"sync", func(d dirOf) error {
		f, err := os.OpenFile(d.at("file"), os.O_WRONLY|unix.O_SYNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte("synced"))
		d.say("%v %v %v", err, f.Sync(), unix.Fdatasync(int(f.Fd())))
		for _, name := range []string{"dir", "."} {
			g, err := os.Open(d.at(name))
			if err != nil {
				return err
			}
			d.say("%v %v", g.Sync(), g.Close())
		}
		return nil
	}},
	{"tmpfile", func(d dirOf) error {
		fd, err := unix.Open(d.at("dir"), unix.O_TMPFILE|unix.O_RDWR, 0o640)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("nameless"))
		var st unix.Stat_t
		d.say("%v %v links=%d", err, unix.Fstat(fd, &st), st.Nlink)
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, d.at("dir/named"), unix.AT_SYMLINK_FOLLOW)
		d.say("%v %v", err, unix.Close(fd))
		d.cat("dir/named")
		d.stat("dir/named")
		return nil
	}},
}

func setgroups(groups []uint32, list *uint32) error {
	if _, _, e := rawSetgroups(len(groups), list); e != 0 {
		return e
	}
	return nil
}

func listen(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if string(b) != "hello" {
		err = errors.Join(err, errors.New("no hello"))
	}
	l.(*net.UnixListener).SetUnlinkOnClose(true)
	return errors.Join(err, c.Close(), l.Close())
}
