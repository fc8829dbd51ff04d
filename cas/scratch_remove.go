package cas

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpenDirs bounds how many directories a removal has open at once. What lies
// deeper is moved to the top first, so that a tree of any depth can be removed
// with few descriptors and without a path that is too long.
const maxOpenDirs = 32

// A remover deletes one tree. It works on directory descriptors alone, follows
// no symbolic link and enters no mount: what is mounted in the tree is
// detached. It goes on after an error, so that one file that resists does not
// keep the rest.
type remover struct {
	dir    int      // the directory that holds the tree
	top    string   // the tree's name in it
	moved  []string // trees moved up beside it because they were too deep
	locked bool     // by the caller, against others who would remove it
	errs   []error
}

// maxRemoveErrors bounds what a removal reports: after that many files the
// reason is clear.
const maxRemoveErrors = 5

// removeScratch deletes the entry name of dir, which the caller may have locked.
// What is not there counts as deleted.
func removeScratch(dir, name string, locked bool) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	r := &remover{dir: fd, top: name, locked: locked}
	r.remove(fd, name, unix.DT_UNKNOWN, 0)
	for len(r.moved) > 0 {
		last := len(r.moved) - 1
		next := r.moved[last]
		r.moved = r.moved[:last]
		r.remove(fd, next, unix.DT_DIR, 0)
	}
	return errors.Join(r.errs...)
}

func (r *remover) fail(op, name string, err error) {
	if len(r.errs) < maxRemoveErrors {
		r.errs = append(r.errs, &os.PathError{Op: op, Path: name, Err: err})
	}
}

// remove deletes the entry name of the directory parent, of a type as
// getdents64(2) tells, depth levels below the tree's top.
func (r *remover) remove(parent int, name string, typ byte, depth int) {
	err := unlink(parent, name, typ)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		r.fail("remove", name, err)
		return
	}
	if depth >= maxOpenDirs && r.moveUp(parent, name) {
		return
	}
	fd, err := openTreeDir(parent, name)
	if errors.Is(err, unix.ENOENT) {
		return
	}
	if err != nil {
		r.fail("open", name, err)
		return
	}
	defer unix.Close(fd)
	if depth == 0 && !r.locked && errors.Is(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return // another process is at it
	}
	err = eachEntry(fd, func(n string, typ byte) { r.remove(fd, n, typ, depth+1) })
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: of a directory removed meanwhile
		r.fail("read", name, err)
	}
	if err := unlink(parent, name, unix.DT_DIR); err != nil && !errors.Is(err, unix.ENOENT) {
		r.fail("remove", name, err)
	}
}

// moveUp puts a directory beside the tree's top, to be removed later; false if
// that is not possible.
func (r *remover) moveUp(parent int, name string) bool {
	// The suffix keeps the owner's name readable, so that Reclaim finds what a
	// killed removal leaves.
	to := r.top + "-" + strconv.Itoa(len(r.moved)) + "-" + strconv.Itoa(parent)
	for i := 0; ; i++ {
		unique := to + "-" + strconv.Itoa(i)
		err := unix.Renameat2(parent, name, r.dir, unique, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return false
		}
		r.moved = append(r.moved, unique)
		return true
	}
}

// unlink removes a file or an empty directory, after detaching what is mounted
// on it and clearing the attributes that forbid it. ENOTEMPTY means a directory
// with something in it.
func unlink(parent int, name string, typ byte) error {
	var err error
	for range 3 {
		if typ != unix.DT_DIR {
			err = unix.Unlinkat(parent, name, 0)
		}
		if errors.Is(err, unix.EISDIR) {
			typ = unix.DT_DIR
		}
		if typ == unix.DT_DIR {
			err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		}
		switch {
		case errors.Is(err, unix.EBUSY):
			// A mount point of our mount namespace (one of another namespace does not
			// hinder removal, since Linux 3.18).
			if detach("/proc/self/fd/"+strconv.Itoa(parent)+"/"+name) != nil {
				return err
			}
		case errors.Is(err, unix.EPERM):
			if !ClearImmutable(parent, ".") && !ClearImmutable(parent, name) {
				return err
			}
		case errors.Is(err, unix.EACCES):
			if unix.Fchmodat(parent, ".", 0o700, 0) != nil {
				return err
			}
		default:
			return err
		}
	}
	return err
}

// detach takes away what is mounted on path, all of it.
func detach(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: path, Err: err}
	}
	return nil
}

// openTreeDir opens a directory for reading without following a symbolic link
// or entering a mount.
func openTreeDir(parent int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	open := func() (int, error) {
		fd, err := unix.Openat2(parent, name, &unix.OpenHow{
			Flags:   flags,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
		})
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
			// Before Linux 5.6, or a seccomp filter that does not know it.
			return openSameMount(parent, name, flags)
		}
		return fd, err
	}
	fd, err := open()
	if errors.Is(err, unix.EACCES) && unix.Fchmodat(parent, name, 0o700, 0) == nil {
		fd, err = open()
	}
	return fd, err
}

// openSameMount does without openat2 what openTreeDir needs.
func openSameMount(parent int, name string, flags int) (int, error) {
	fd, err := unix.Openat(parent, name, flags, 0)
	if err != nil {
		return -1, err
	}
	if mountID(fd) != mountID(parent) {
		unix.Close(fd)
		return -1, unix.EXDEV
	}
	return fd, nil
}

// mountID is the mount that a descriptor is in, as /proc shows it since Linux
// 3.15; "" if unknown.
func mountID(fd int) string {
	var buf [512]byte
	n, err := readProc("/proc/self/fdinfo/"+strconv.Itoa(fd), buf[:])
	if err != nil {
		return ""
	}
	_, id, _ := strings.Cut(string(buf[:n]), "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	return id
}

// File attributes of FS_IOC_GETFLAGS, from the kernel's linux/fs.h.
const (
	fsImmutable = 0x10
	fsAppend    = 0x20
)

// ClearImmutable takes the immutable and append-only attributes (chattr +i, +a)
// from a file or directory; false if there was none to take, or it cannot be.
func ClearImmutable(parent int, name string) bool {
	var st unix.Stat_t
	if unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return false
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(fsImmutable|fsAppend) == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(fsImmutable|fsAppend)) == nil
}
