package rootemu

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestCalls(t *testing.T) {
	c := newContainer(t)
	if out := c.run(t, callsName, "table"); out != "" {
		t.Errorf("\n%s", out)
	}
	c.wantLayer(t, "tmp/ 5 755 0:0",
		"tmp/dangling 2 777 40:41 -> nowhere",
		"tmp/dev 3 644 0:0 1,3", "tmp/dev2 4 640 0:0 259,4660",
		"tmp/dir/ 5 755 20:21", "tmp/dir/in 0 644 15:0 0", "tmp/dir/l 2 777 13:14 -> ../file",
		"tmp/file 0 644 18:6 0 trusted.y=32",
		"tmp/link 1 644 18:6 -> tmp/file trusted.y=32",
		"tmp/loop 2 777 0:0 -> loop",
		"tmp/made 0 644 77:78 0",
		"tmp/root/ 5 755 0:0", "tmp/root/d/ 5 755 0:0", "tmp/root/d/f 0 644 52:53 0", "tmp/root/d/in 3 600 0:0 5,1",
		"tmp/root/l 2 777 0:0 -> /d/f",
		"tmp/sym 2 777 11:12 -> file")
}

// testCalls is a program in the container.
func testCalls() {
	var err error
	switch os.Args[1] {
	case "table":
		err = callTable()
	case "ids":
		err = callIDs()
	case "threads":
		err = callThreads()
	case "costs":
		err = printCosts()
	case "forever":
		for n := 0; ; n++ {
			_ = unix.Lchown("/tmp/f", n, n)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// step is a call and the error that it should have.
type step struct {
	name string
	err  error
	want error
}

func wrong(steps []step) error {
	var all error
	for _, s := range steps {
		if !errors.Is(s.err, s.want) {
			all = errors.Join(all, fmt.Errorf("%s: error is %v, not %v", s.name, s.err, s.want))
		}
	}
	return all
}

func callTable() error {
	must := func(err error) {
		if err != nil {
			fmt.Println("prepare:", err)
			os.Exit(1)
		}
	}
	must(os.Chdir("/tmp"))
	file := func(name string) { must(os.WriteFile(name, nil, 0o644)) }
	file("file")
	must(os.Mkdir("dir", 0o755))
	file("dir/in")
	must(os.Symlink("../file", "dir/l"))
	must(os.Symlink("file", "sym"))
	must(os.Symlink("nowhere", "dangling"))
	must(os.Symlink("loop", "loop"))
	must(os.Link("file", "link"))
	must(unix.Chmod("file", 0o4755))
	must(unix.Mkdir("ro", 0o755))
	must(unix.Mount("tmpfs", "ro", "tmpfs", 0, ""))
	file("ro/f")
	must(unix.Mknod("ro/whiteout", unix.S_IFCHR, 0))
	must(unix.Mknod("ro/dev", unix.S_IFCHR, 0x103))
	foreign := unix.Chown("ro/f", 9, 9)
	must(unix.Mount("", "ro", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	open := func(name string, flags int) int {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o644)
		must(err)
		return fd
	}
	dir, in, named := open("dir", unix.O_RDONLY), open("dir/in", unix.O_RDWR), open("file", unix.O_PATH)
	nameless := open("/tmp", unix.O_TMPFILE|unix.O_RDWR)
	long := strings.Repeat("n/", 3000)
	const nofollow, empty = unix.AT_SYMLINK_NOFOLLOW, unix.AT_EMPTY_PATH
	raw := func(nr, a, b, c, d, e uintptr) error {
		_, _, errno := unix.Syscall6(nr, a, b, c, d, e, 0)
		return errnoError(errno)
	}
	at := ^uintptr(99) // AT_FDCWD
	err := wrong([]step{
		{"another filesystem", foreign, nil},
		{"chown", unix.Chown("file", 1, 2), nil},
		{"chown of a user", unix.Chown("link", 3, -1), nil},
		{"chown of a group", unix.Chown("sym", -1, 6), nil},
		{"chown of nothing", unix.Chown("sym", -1, -1), nil},
		{"lchown", unix.Lchown("sym", 11, 12), nil},
		{"lchown of a dangling link", unix.Lchown("dangling", 40, 41), nil},
		{"lchown relative to a directory", unix.Fchownat(dir, "l", 13, 14, nofollow), nil},
		{"fchown", unix.Fchown(in, 15, 16), nil},
		{"fchown to root's group", unix.Fchown(in, -1, 0), nil},
		{"fchownat of a descriptor", unix.Fchownat(named, "", 17, -1, empty), nil},
		{"fchownat that follows", unix.Fchownat(dir, "l", 18, -1, 0), nil},
		{"fchownat, absolute", unix.Fchownat(-1, "/tmp/dir", 20, 21, 0), nil},
		{"of a nameless file", unix.Fchown(nameless, 77, 78), nil},
		{"no such file", unix.Chown("nothing", 1, 1), unix.ENOENT},
		{"empty path", unix.Chown("", 1, 1), unix.ENOENT},
		{"empty path, fchownat", unix.Fchownat(in, "", 1, 1, 0), unix.ENOENT},
		{"dangling link", unix.Chown("dangling", 1, 1), unix.ENOENT},
		{"below a file", unix.Chown("file/x", 1, 1), unix.ENOTDIR},
		{"file with a slash", unix.Lchown("file/", 1, 1), unix.ENOTDIR},
		{"relative to a file", unix.Fchownat(in, "x", 1, 1, 0), unix.ENOTDIR},
		{"loop", unix.Chown("loop", 1, 1), unix.ELOOP},
		{"long path", unix.Chown(long, 1, 1), unix.ENAMETOOLONG},
		{"long name", unix.Chown(strings.Repeat("n", 256), 1, 1), unix.ENAMETOOLONG},
		{"closed descriptor", unix.Fchown(999, 1, 1), unix.EBADF},
		{"no descriptor", unix.Fchown(-1, 1, 1), unix.EBADF},
		{"descriptor without access", unix.Fchown(named, 1, 1), unix.EBADF},
		{"relative to a closed descriptor", unix.Fchownat(999, "file", 1, 1, 0), unix.EBADF},
		{"wrong flags", unix.Fchownat(dir, "in", 1, 1, 0x8000), unix.EINVAL},
		{"no path", raw(unix.SYS_FCHOWNAT, at, 0, 1, 1, 0), unix.EFAULT},
		{"wild path", raw(unix.SYS_FCHOWNAT, at, 1<<40, 1, 1, 0), unix.EFAULT},
		{"read-only", unix.Chown("ro/f", 1, 1), unix.EROFS},

		{"device", unix.Mknod("dev", unix.S_IFCHR|0o666, 0x103), nil},
		{"device with large numbers", unix.Mknodat(dir, "../dev2", unix.S_IFBLK|0o640, int(unix.Mkdev(259, 0x1234))), nil},
		{"device that is there", unix.Mknod("dev", unix.S_IFBLK|0o666, 0x103), unix.EEXIST},
		{"device nowhere", unix.Mknod("nothing/dev", unix.S_IFBLK, 0x103), unix.ENOENT},
		{"device with a slash", unix.Mknod("dev3/", unix.S_IFBLK, 0x103), unix.ENOENT},
		{"device /", unix.Mknod("/", unix.S_IFBLK, 0x103), unix.EEXIST},
		{"device .", unix.Mknod(".", unix.S_IFBLK, 0x103), unix.EEXIST},
		{"device without name", unix.Mknod("", unix.S_IFBLK, 0x103), unix.ENOENT},
		{"whiteout of our own", unix.Mknod("dev4", unix.S_IFCHR, 0), unix.EPERM}, // as overlayfs says
		{"device, read-only", unix.Mknod("ro/dev2", unix.S_IFBLK, 0x103), unix.EROFS},

		{"trusted attribute", unix.Setxattr("file", "trusted.x", []byte("1"), 0), nil},
		{"made twice", unix.Setxattr("file", "trusted.x", []byte("1"), unix.XATTR_CREATE), unix.EEXIST},
		{"replaced", unix.Setxattr("file", "trusted.y", []byte("1"), unix.XATTR_REPLACE), unix.ENODATA},
		{"another", unix.Fsetxattr(in, "trusted.z", []byte("2"), 0), nil},
		{"no more", unix.Fremovexattr(in, "trusted.z"), nil},
		{"no more again", unix.Fremovexattr(in, "trusted.z"), unix.ENODATA},
		{"by a link", unix.Setxattr("sym", "trusted.y", []byte("2"), 0), nil},
		{"removed", unix.Lremovexattr("link", "trusted.x"), nil},
		{"of the user", unix.Setxattr("file", "user.x", []byte("3"), 0), nil},
		{"of the user, gone", unix.Removexattr("file", "user.x"), nil},
		{"of nobody", unix.Setxattr("file", "nobody.x", nil, 0), unix.EOPNOTSUPP},
		{"capability that is none", unix.Setxattr("file", xattrCapability, []byte("x"), 0), unix.EINVAL},
	})
	var st unix.Stat_t
	must(unix.Stat("file", &st))
	if st.Mode&0o7777 != 0o755 {
		err = errors.Join(err, fmt.Errorf("a chown leaves mode %o", st.Mode))
	}
	must(unix.Chmod("file", 0o644))
	must(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", nameless), unix.AT_FDCWD, "made", unix.AT_SYMLINK_FOLLOW))
	must(unix.Unmount("ro", 0))
	must(os.Remove("ro"))
	return errors.Join(err, inOtherRoot())
}

// inOtherRoot makes calls from a thread that has a root and a directory of its own.
func inOtherRoot() error {
	done := make(chan error)
	go func() {
		goruntime.LockOSThread()
		err := errors.Join(
			unix.Unshare(unix.CLONE_FS), os.MkdirAll("/tmp/root/d", 0o755), os.WriteFile("/tmp/root/d/f", nil, 0o644),
			os.Symlink("/d/f", "/tmp/root/l"), unix.Chroot("/tmp/root"), unix.Chdir("/d"))
		done <- errors.Join(err, wrong([]step{
			{"chown in a chroot", unix.Chown("/l", 50, 51), nil},
			{"relative in a chroot", unix.Chown("../../../d/f", 52, 53), nil},
			{"outside of a chroot", unix.Chown("/tmp/file", 1, 1), unix.ENOENT},
			{"device in a chroot", unix.Mknod("/d/in", unix.S_IFCHR|0o600, 0x501), nil},
		}))
	}()
	return <-done
}

func TestIDs(t *testing.T) {
	c := newContainer(t)
	if out := c.run(t, callsName, "ids"); out != "" {
		t.Errorf("\n%s", out)
	}
}

func callIDs() error {
	var problems error
	want := func(what string, wantUID, wantGID [3]int) {
		var uid, gid [3]int
		uid[0], uid[1], uid[2] = unix.Getresuid()
		gid[0], gid[1], gid[2] = unix.Getresgid()
		if uid != wantUID || gid != wantGID || unix.Getuid() != uid[0] || unix.Geteuid() != uid[1] ||
			unix.Getgid() != gid[0] || unix.Getegid() != gid[1] {
			problems = errors.Join(problems, fmt.Errorf("%s: ids are %v %v, not %v %v", what, uid, gid, wantUID, wantGID))
		}
	}
	check := func(steps ...step) { problems = errors.Join(problems, wrong(steps)) }
	zero := [3]int{}
	want("at first", zero, zero)
	check(
		step{"setresgid", unix.Setresgid(34, 34, 0), nil},
		step{"setresuid", unix.Setresuid(33, 33, 0), nil},
		step{"group without right", unix.Setgid(7), unix.EPERM},
		step{"user without right", unix.Setresuid(-1, 7, -1), unix.EPERM},
		step{"two users without right", unix.Setreuid(7, 33), unix.EPERM},
		step{"groups without right", unix.Setgroups([]int{1}), unix.EPERM},
	)
	want("as a user that root is saved of", [3]int{33, 33, 0}, [3]int{34, 34, 0})
	// Go makes this call on all threads, and the second one has more rights than the first.
	_, _, errno := unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0)
	check(step{"back by setuid", errnoError(errno), nil})
	want("back", [3]int{33, 0, 0}, [3]int{34, 34, 0})
	check(
		step{"setreuid", unix.Setreuid(0, 0), nil},
		step{"setregid", unix.Setregid(0, 0), nil},
	)
	want("as root", zero, zero)
	if was, _ := unix.SetfsuidRetUid(12); was != 0 {
		problems = errors.Join(problems, fmt.Errorf("setfsuid says %d", was))
	}
	if was, _ := unix.SetfsuidRetUid(0); was != 12 {
		problems = errors.Join(problems, fmt.Errorf("setfsuid then says %d", was))
	}
	check(
		step{"setgroups", unix.Setgroups([]int{5, 70000}), nil},
		step{"setgid", unix.Setgid(34), nil},
		step{"setuid", unix.Setuid(33), nil},
		step{"setuid to nobody", unix.Setuid(-1), unix.EINVAL},
		step{"setuid back", unix.Setuid(0), unix.EPERM},
		step{"setgid back", unix.Setgid(0), unix.EPERM},
	)
	want("for ever", [3]int{33, 33, 33}, [3]int{34, 34, 34})
	groups, err := unix.Getgroups()
	if err != nil || !slices.Equal(groups, []int{5, 70000}) {
		problems = errors.Join(problems, fmt.Errorf("groups are %v, %v", groups, err))
	}
	var few [1]uint32
	_, _, errno = unix.Syscall(unix.SYS_GETGROUPS, 1, uintptr(unsafe.Pointer(&few)), 0)
	check(step{"getgroups with little room", errno, unix.EINVAL})
	return problems
}

func errnoError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func TestThreads(t *testing.T) {
	c := newContainer(t)
	c.run(t, callsName, "threads")
	lines := c.layer(t)
	if len(lines) != 1+manyThreads*filesEach {
		t.Fatalf("%d entries", len(lines))
	}
	for _, l := range lines[1:] {
		var n, m int
		var rest string
		if _, err := fmt.Sscanf(l, "tmp/%d-%d 0 644 %s", &n, &m, &rest); err != nil || rest != fmt.Sprintf("%d:%d", n+1, m+1) {
			t.Errorf("%s (%v)", l, err)
		}
	}
}

const (
	manyThreads = 8
	filesEach   = 100
)

// callThreads gives files away by many threads at once, while others rename them.
func callThreads() error {
	var wg sync.WaitGroup
	errs := make(chan error, 3*manyThreads*filesEach)
	for n := range manyThreads {
		wg.Go(func() {
			goruntime.LockOSThread()
			for m := range filesEach {
				name := fmt.Sprintf("/tmp/%d-%d", n, m)
				errs <- os.WriteFile(name+"new", nil, 0o644)
				var both sync.WaitGroup
				f, err := os.Open(name + "new")
				if err != nil {
					errs <- err
					continue
				}
				both.Go(func() { errs <- os.Rename(name+"new", name) })
				err = f.Chown(n+1, m+1)
				both.Wait()
				if err = errors.Join(err, f.Close()); err != nil {
					errs <- err
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(errs)
	}()
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}
