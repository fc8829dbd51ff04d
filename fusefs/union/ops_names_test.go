package union

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func rawSetgroups(n int, list *uint32) (uintptr, uintptr, unix.Errno) {
	return unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(n), uintptr(unsafe.Pointer(list)), 0)
}

// rename tries a rename and says what became of it.
func (d dirOf) rename(from, to string, flags uint) {
	err := unix.Renameat2(unix.AT_FDCWD, d.at(from), unix.AT_FDCWD, d.at(to), flags)
	d.say("%s -> %s (%d): %v", from, to, flags, err)
}

func (d dirOf) names(dir string) {
	ents, err := os.ReadDir(d.at(dir))
	var all []string
	for _, e := range ents {
		all = append(all, fmt.Sprintf("%s %v", e.Name(), e.Type()))
	}
	d.say("%s: %q %v", dir, all, errno(err))
}

var nameOps = []op{
	{"rename files", func(d dirOf) error {
		d.rename("file", "moved", 0)
		d.rename("moved", "dir/moved", 0)
		d.rename("private", "dir/a", 0)
		d.rename("linked", "dir/l", 0)
		d.rename("sym", "dir/sym", 0)
		d.rename("fifo", "dir/fifo", 0)
		d.rename("missing", "x", 0)
		d.rename("suid", "dir", 0)
		d.rename("suid", "missing/x", 0)
		d.rename("suid", "suid", 0)
		d.rename("linked2", "dir/l", 0) // the same file: nothing happens
		d.rename("big", "world", unix.RENAME_NOREPLACE)
		d.rename("big", "new", unix.RENAME_NOREPLACE)
		d.rename("world", "suid", unix.RENAME_EXCHANGE)
		d.rename("world", "sym2", unix.RENAME_EXCHANGE)
		d.names(".")
		d.names("dir")
		d.stat("linked2")
		d.stat("dir/l")
		return nil
	}},
	{"rename directories", func(d dirOf) error {
		for _, name := range []string{"n1", "n1/sub", "n2", "n3"} {
			if err := os.Mkdir(d.at(name), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(d.at("n1/sub/f"), []byte("deep"), 0o644); err != nil {
			return err
		}
		d.rename("n1", "n2", 0) // over an empty one
		d.cat("n2/sub/f")
		d.rename("n2", "full", 0)
		d.rename("n2", "n2/sub/x", 0)
		d.rename("n2", "file", 0)
		d.rename("n2", "empty", 0) // over an empty one of the layers
		d.names("empty")
		d.cat("empty/sub/f")
		d.say("%v", os.RemoveAll(d.at("full")))
		d.rename("empty", "full", 0) // where one of the layers was removed
		d.names("full")
		d.rename("n3", "full/sub", unix.RENAME_EXCHANGE)
		d.names("full")
		d.names("n3")
		d.rename("n3", "file", unix.RENAME_EXCHANGE)
		d.names("file")
		d.cat("n3")
		return nil
	}},
	{"remove and make again", func(d dirOf) error {
		for range 3 {
			d.say("%v", os.RemoveAll(d.at("full")))
			d.stat("full")
			d.say("%v", os.Mkdir(d.at("full"), 0o750))
			d.names("full")
			d.say("%v", os.WriteFile(d.at("full/x"), []byte("again"), 0o600))
			d.cat("full/x")
			d.say("%v", os.Remove(d.at("file")))
			d.cat("file")
			d.say("%v", os.WriteFile(d.at("file"), []byte("again"), 0o640))
			d.cat("file")
			d.stat("file")
		}
		d.say("%v", os.Remove(d.at("file")))
		d.say("%v", os.Mkdir(d.at("file"), 0o755))
		d.say("%v", os.RemoveAll(d.at("full")))
		d.say("%v", os.Symlink("file", d.at("full")))
		d.names(".")
		d.say("%v", os.Remove(d.at("sym")))
		d.say("%v", os.Link(d.at("private"), d.at("sym")))
		d.stat("private")
		return nil
	}},
	{"rmdir", func(d dirOf) error {
		d.say("%v", errno(unix.Rmdir(d.at("full"))))
		d.say("%v", errno(unix.Rmdir(d.at("file"))))
		d.say("%v", errno(unix.Unlink(d.at("full"))))
		d.say("%v", errno(unix.Rmdir(d.at("empty"))))
		d.say("%v", errno(unix.Rmdir(d.at("empty"))))
		d.say("%v", errno(unix.Unlink(d.at("full/x"))))
		d.say("%v", errno(unix.Rmdir(d.at("full"))))
		d.say("%v", errno(unix.Unlink(d.at("missing"))))
		d.names(".")
		return nil
	}},
	{"links", func(d dirOf) error {
		d.stat("linked")
		d.say("%v", os.Chmod(d.at("linked2"), 0o600))
		d.stat("linked")
		d.stat("dir/linked3")
		d.say("%v", os.WriteFile(d.at("dir/linked3"), []byte("through the third"), 0))
		d.cat("linked")
		d.say("%v", os.Link(d.at("file"), d.at("dir/new")))
		d.stat("file")
		d.say("%v", errno(os.Link(d.at("file"), d.at("dir/new"))))
		d.say("%v", errno(os.Link(d.at("dir"), d.at("dir2"))))
		d.say("%v", os.Link(d.at("sym"), d.at("sym2")))
		d.say("%v", os.Remove(d.at("linked")))
		d.stat("linked2")
		d.say("%v", os.Remove(d.at("dir/linked3")))
		d.stat("linked2")
		d.cat("linked2")
		return nil
	}},
	{"stream while removing", func(d dirOf) error {
		f, err := os.Open(d.at("many"))
		if err != nil {
			return err
		}
		defer f.Close()
		seen := map[string]int{}
		for i := 0; ; i++ {
			names, err := f.Readdirnames(20)
			for _, n := range names {
				seen[n]++
				if strings.HasSuffix(n, "3") {
					d.check(os.Remove(d.at("many/" + n)))
				}
			}
			d.check(os.WriteFile(d.at(fmt.Sprintf("many/new%d", i)), nil, 0o644))
			if err != nil {
				break
			}
		}
		for i := range 150 {
			if n := fmt.Sprintf("%03d", i); seen[n] != 1 {
				d.say("%s: %d times", n, seen[n])
			}
		}
		return os.RemoveAll(d.at("many"))
	}},
	{"inode numbers", func(d dirOf) error {
		ino := func(name string) (st unix.Stat_t) {
			d.check(unix.Lstat(d.at(name), &st))
			return st
		}
		before := []uint64{ino("file").Ino, ino("linked").Ino, ino("dir").Ino, ino("sym").Ino}
		d.check(os.Chmod(d.at("file"), 0o600))
		d.check(os.Chmod(d.at("linked2"), 0o600))
		d.check(os.Chmod(d.at("dir"), 0o700))
		d.check(os.Lchown(d.at("sym"), 1, 1))
		d.rename("file", "dir/file", 0)
		after := []uint64{ino("dir/file").Ino, ino("linked").Ino, ino("dir").Ino, ino("sym").Ino}
		d.say("%v", slices.Equal(before, after))
		f, err := os.Open(d.at("."))
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 64<<10)
		n, err := unix.Getdents(int(f.Fd()), buf)
		for b := buf[:max(n, 0)]; len(b) > 19; b = b[binary.NativeEndian.Uint16(b[16:]):] {
			name, _, _ := strings.Cut(string(b[19:]), "\x00")
			if name != ".." && ino(name).Ino != binary.NativeEndian.Uint64(b) {
				d.say("%s has another number in its directory", name)
			}
		}
		return err
	}},
	{"names", func(d dirOf) error {
		for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("n", 2000)} {
			d.say("%v", errno(os.WriteFile(d.at(name), nil, 0o644)))
			d.say("%v", errno(os.WriteFile(d.at("dir/"+name), nil, 0o644)))
			d.say("%v", errno(os.Mkdir(d.at("empty/"+name), 0o755)))
			_, err := os.Lstat(d.at("full/" + name))
			d.say("%v", errno(err))
			d.rename("file", name, 0)
			d.rename(name, "file", 0)
		}
		d.say("%v", errno(unix.Mknod(d.at("wh"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))))
		d.stat("wh")
		return nil
	}},
	{"fifo and socket", func(d dirOf) error {
		for _, name := range []string{"fifo", "fifo2"} {
			if name == "fifo2" {
				d.check(unix.Mkfifo(d.at(name), 0o600))
			}
			f, err := os.OpenFile(d.at(name), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			b := make([]byte, 5)
			_, err = f.Write([]byte("hello"))
			d.check(err)
			n, err := f.Read(b)
			d.say("%q %v %v", b[:n], err, f.Close())
		}
		if len(d.at("s")) < 100 {
			d.check(listen(d.at("s")))
		}
		d.stat("s")
		return nil
	}},
	{"working directory removed", func(d dirOf) error {
		for _, name := range []string{"empty", "newdir"} {
			if name == "newdir" {
				d.check(os.Mkdir(d.at(name), 0o755))
			}
			f, err := os.Open(d.at(name))
			if err != nil {
				return err
			}
			d.say("%v", unix.Rmdir(d.at(name)))
			var st unix.Stat_t
			d.say("%v %o", unix.Fstat(int(f.Fd()), &st), st.Mode)
			_, err = f.Readdirnames(-1)
			d.say("%v", errno(err))
			_, err = unix.Openat(int(f.Fd()), "x", unix.O_CREAT|unix.O_WRONLY, 0o600)
			d.say("%v", err)
			d.say("%v", f.Close())
		}
		return nil
	}},
}

func (d dirOf) check(err error) {
	if err != nil {
		d.say("unexpected: %v", errno(err))
	}
}

// An access control list: the file's owner, user 1000, the group, the mask, others.
func testACL(user, named, group, mask, other uint16) []byte {
	const none = 1<<32 - 1
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{aclUserObj, user, none}, {2, named, 1000}, {aclGroupObj, group, none}, {aclMask, mask, none}, {aclOther, other, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

var userOps = []op{
	{"permissions", func(d dirOf) error {
		return as(1000, 1000, 0o022, nil, func() error {
			for _, name := range []string{"file", "private", "world", "sticky/root"} {
				_, err := os.ReadFile(d.at(name))
				d.say("read %s: %v", name, errno(err))
				f, err := os.OpenFile(d.at(name), os.O_WRONLY, 0)
				d.say("write %s: %v", name, errno(err))
				if err == nil {
					f.Close()
				}
				d.say("chmod %s: %v", name, errno(os.Chmod(d.at(name), 0o777)))
				d.say("chown %s: %v", name, errno(os.Chown(d.at(name), 1000, 1000)))
				d.say("truncate %s: %v", name, errno(os.Truncate(d.at(name), 1)))
				d.say("remove %s: %v", name, errno(os.Remove(d.at(name))))
			}
			d.say("%v", errno(os.WriteFile(d.at("new"), nil, 0o644)))
			d.say("%v", errno(os.WriteFile(d.at("open/new"), []byte("x"), 0o666)))
			d.stat("open/new")
			d.say("%v", errno(os.Mkdir(d.at("open/dir"), 0o777)))
			d.stat("open/dir")
			d.say("%v", errno(os.Symlink("x", d.at("open/sym"))))
			d.stat("open/sym")
			d.say("%v", errno(unix.Mkfifo(d.at("open/fifo"), 0o666)))
			d.stat("open/fifo")
			d.say("%v", errno(unix.Mknod(d.at("open/dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))))
			d.say("%v", errno(os.WriteFile(d.at("sticky/mine"), []byte("x"), 0o600)))
			d.rename("sticky/root", "sticky/mine", 0)
			d.say("%v", errno(os.Remove(d.at("sticky/mine"))))
			d.say("%v", errno(unix.Setxattr(d.at("file"), "user.no", nil, 0)))
			d.say("%v", errno(unix.Setxattr(d.at("open/new"), "trusted.no", nil, 0)))
			return nil
		})
	}},
	{"umask", func(d dirOf) error {
		for _, mask := range []int{0, 0o022, 0o077, 0o777} {
			for _, uid := range []int{0, 1000} {
				name := fmt.Sprintf("open/%d-%o", uid, mask)
				err := as(uid, uid, mask, nil, func() error {
					d.check(os.WriteFile(d.at(name), nil, 0o777))
					d.check(os.Mkdir(d.at(name+"d"), 0o777))
					d.check(unix.Mkfifo(d.at(name+"f"), 0o666))
					return nil
				})
				if err != nil {
					return err
				}
				d.stat(name)
				d.stat(name + "d")
				d.stat(name + "f")
			}
		}
		return nil
	}},
	{"setgid directory", func(d dirOf) error {
		for _, groups := range [][]uint32{nil, {5000}} {
			for _, uid := range []int{0, 1000} {
				name := fmt.Sprintf("group/%d-%d", uid, len(groups))
				err := as(uid, uid, 0o022, groups, func() error {
					d.check(os.Mkdir(d.at(name), 0o755))
					d.check(os.Mkdir(d.at(name+"/sub"), 0o755))
					d.check(os.WriteFile(d.at(name+"/f"), nil, 0o644))
					fd, err := unix.Open(d.at(name+"/g"), unix.O_CREAT|unix.O_WRONLY, 0o2775)
					d.check(err)
					unix.Close(fd)
					d.say("%v", errno(unix.Chmod(d.at(name+"/f"), 0o2775)))
					return nil
				})
				if err != nil {
					return err
				}
				for _, n := range []string{"", "/sub", "/f", "/g"} {
					d.stat(name + n)
				}
			}
		}
		return nil
	}},
	{"set-user-ID bits go", func(d dirOf) error {
		for _, name := range []string{"suid", "sgid"} {
			if err := os.Chmod(d.at(name), 0o777|os.ModeSetuid|os.ModeSetgid); err != nil {
				return err
			}
			d.stat(name)
			err := as(1000, 1000, 0, nil, func() error {
				f, err := os.OpenFile(d.at(name), os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.Write([]byte("x"))
				return err
			})
			if err != nil {
				return err
			}
			d.stat(name)
		}
		bits := func() { d.check(os.Chmod(d.at("suid"), 0o777|os.ModeSetuid|os.ModeSetgid)) }
		for _, f := range []func() error{
			func() error { return os.Truncate(d.at("suid"), 3) },
			func() error { return os.WriteFile(d.at("suid"), []byte("y"), 0) },
			func() error {
				f, err := os.OpenFile(d.at("suid"), os.O_WRONLY, 0)
				d.check(err)
				defer f.Close()
				return unix.Fallocate(int(f.Fd()), 0, 0, 100)
			},
		} {
			for _, uid := range []int{0, 1000} {
				bits()
				if err := as(uid, uid, 0, nil, f); err != nil {
					return err
				}
				d.stat("suid")
			}
		}
		bits()
		d.check(os.Chown(d.at("suid"), 7, 7))
		d.stat("suid")
		return nil
	}},
	{"access control lists", func(d dirOf) error {
		d.check(unix.Setxattr(d.at("private"), aclAccess, testACL(6, 4, 0, 4, 0), 0))
		d.stat("private")
		err := as(1000, 1000, 0, nil, func() error { d.cat("private"); return nil })
		if err != nil {
			return err
		}
		err = as(1001, 1001, 0, nil, func() error { d.cat("private"); return nil })
		if err != nil {
			return err
		}
		d.check(unix.Setxattr(d.at("open"), aclDefault, testACL(7, 6, 5, 7, 1), 0))
		for _, uid := range []int{0, 1000} {
			for _, mask := range []int{0, 0o077} {
				name := fmt.Sprintf("open/%d-%o", uid, mask)
				err := as(uid, uid, mask, nil, func() error {
					d.check(os.WriteFile(d.at(name), nil, 0o640))
					d.check(os.WriteFile(d.at(name+"x"), nil, 0o777))
					d.check(os.Mkdir(d.at(name+"d"), 0o755))
					d.check(os.WriteFile(d.at(name+"d/f"), nil, 0o666))
					return nil
				})
				if err != nil {
					return err
				}
				for _, n := range []string{"", "x", "d", "d/f"} {
					d.stat(name + n)
				}
			}
		}
		d.check(unix.Chmod(d.at("private"), 0o660))
		d.check(os.Chown(d.at("world"), 1000, 5000)) // a group that its owner is not in
		d.check(os.Chmod(d.at("world"), 0o775|os.ModeSetgid))
		err = as(1000, 1000, 0, nil, func() error {
			return unix.Setxattr(d.at("world"), aclAccess, testACL(7, 6, 5, 7, 1), 0)
		})
		d.check(err)
		d.stat("world")
		d.check(unix.Removexattr(d.at("open"), aclDefault))
		d.check(os.WriteFile(d.at("open/plain"), nil, 0o666))
		d.stat("open/plain")
		return nil
	}},
	{"owners", func(d dirOf) error {
		for _, name := range []string{"file", "dir", "sym", "fifo", "linked"} {
			d.say("%v", os.Lchown(d.at(name), 1234, 5678))
			d.say("%v", os.Lchown(d.at(name), -1, 4321))
			d.stat(name)
		}
		d.stat("linked2")
		return nil
	}},
}
