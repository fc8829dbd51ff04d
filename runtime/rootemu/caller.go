package rootemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/seccomp"
)

// A caller is a thread that waits for the answer to a call.
type caller struct {
	*worker
	*seccomp.Notice
	narrow bool // see call
}

// num is an argument that is an int.
func (c *caller) num(n int) int32 { return int32(c.Args[n]) }

// addr is an argument that is an address.
func (c *caller) addr(n int) uint64 {
	if c.Arch == unix.AUDIT_ARCH_I386 {
		return uint64(uint32(c.Args[n]))
	}
	return c.Args[n]
}

// noID is the id -1, which in most calls stands for the one that there is.
const noID = ^uint32(0)

// ugid is an argument that is a user or a group.
func (c *caller) ugid(n int) uint32 {
	v := uint32(c.Args[n])
	if !c.narrow {
		return v
	}
	if v = uint32(uint16(v)); v == 0xffff {
		return noID
	}
	return v
}

// its names something of the caller, relative to /proc.
func (c *caller) its(name string) string { return strconv.Itoa(int(c.Pid)) + "/" + name }

const pageSize = 4096 // the smallest there is: what begins in one page of it is readable or not

// read reads the caller's memory, as far as it goes.
func (c *caller) read(addr uint64, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	// A transfer ends at the first of these that is not readable.
	var remote []unix.RemoteIovec
	for at, left := addr, len(b); left > 0; {
		n := min(left, int(pageSize-at%pageSize))
		remote = append(remote, unix.RemoteIovec{Base: uintptr(at), Len: n})
		at, left = at+uint64(n), left-n
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	return unix.ProcessVMReadv(int(c.Pid), local, remote, 0)
}

// readAll reads all of b or says EFAULT.
func (c *caller) readAll(addr uint64, b []byte) error {
	n, err := c.read(addr, b)
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	return err
}

func (c *caller) write(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMWritev(int(c.Pid), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	return err
}

// str reads a string that has limit bytes with its NUL at most; one that has more is tooLong.
func (c *caller) str(addr uint64, limit int, tooLong unix.Errno) (string, error) {
	var b []byte
	for want := min(256, limit); ; want = limit {
		b = make([]byte, want)
		n, err := c.read(addr, b)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(b[:end]), nil
		}
		if n < want {
			return "", unix.EFAULT
		}
		if want == limit {
			return "", tooLong
		}
	}
}

// path is an argument that is a path.
func (c *caller) path(n int) (string, error) {
	return c.str(c.addr(n), unix.PathMax, unix.ENAMETOOLONG)
}

// ids encodes ids as the caller's machine has them in memory.
func (c *caller) encode(ids []uint32) []byte {
	var b []byte
	for _, id := range ids {
		if c.narrow {
			b = binary.NativeEndian.AppendUint16(b, uint16(narrowID(id)))
		} else {
			b = binary.NativeEndian.AppendUint32(b, id)
		}
	}
	return b
}

func (c *caller) decode(b []byte) []uint32 {
	var ids []uint32
	for len(b) > 0 {
		if c.narrow {
			ids, b = append(ids, uint32(binary.NativeEndian.Uint16(b))), b[2:]
		} else {
			ids, b = append(ids, binary.NativeEndian.Uint32(b)), b[4:]
		}
	}
	return ids
}

// idSize is the size of an id in the caller's memory.
func (c *caller) idSize() int {
	if c.narrow {
		return 2
	}
	return 4
}

// narrowID is what a call with ids of 16 bits says of a larger one (/proc/sys/kernel/overflowuid).
func narrowID(id uint32) uint32 {
	if id > 0xffff {
		return 65534
	}
	return id
}

// umask is the caller's.
func (c *caller) umask() (int, error) {
	fd, err := unix.Open(c.its("status"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var b [1024]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b[:n]), "\nUmask:\t")
	digits, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(digits, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("read umask: %w", err)
	}
	return int(mask), nil
}

// A place is where a file is: no two files have one of them, as long as they are.
type place struct {
	dev, ino, mount uint64
	born            birth
}

// birth is when a file was made; it is not known of all filesystems.
type birth struct {
	sec  int64
	nsec uint32
}

func born(id overlay.FileID) birth { return birth{id.BirthSec, id.BirthNsec} }

// placeOf tells where a file is; with an empty path it is dirfd itself, and if the path
// is a symbolic link, what that leads to. The mount is known since Linux 5.8.
func placeOf(dirfd int, path string) (place, error) {
	flags := 0
	if path == "" {
		flags = unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := unix.Statx(dirfd, path, flags, unix.STATX_INO|unix.STATX_BTIME|unix.STATX_MNT_ID, &st); err != nil {
		return place{}, err
	}
	p := place{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		p.mount = st.Mnt_id
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		p.born = birth{st.Btime.Sec, st.Btime.Nsec}
	}
	return p, nil
}

// open opens a path as the caller would, but without effect on the file (O_PATH), so it never blocks.
func (c *caller) open(dirfd int32, path string, flags int) (int, error) {
	if path == "" {
		return -1, unix.ENOENT
	}
	// What the path means to the caller, and not to us.
	for _, self := range []string{"/proc/self/", "/proc/thread-self/"} {
		if rest, ok := strings.CutPrefix(path, self); ok {
			path = "/proc/" + c.its(rest)
		}
	}
	base := unix.AT_FDCWD
	if path[0] != '/' {
		fd, err := c.file(dirfd)
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		base = fd
	}
	root, err := placeOf(unix.AT_FDCWD, c.its("root"))
	if err != nil {
		return -1, err
	}
	if root != c.rootID {
		return c.openIn(base, path, flags)
	}
	if err := c.alive(); err != nil {
		return -1, err
	}
	return openPath(base, path, flags)
}

// openIn is open in the root of a caller that has changed it. The thread goes there and back.
func (c *caller) openIn(base int, path string, flags int) (int, error) {
	root, err := openPath(unix.AT_FDCWD, c.its("root"), unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	if err := c.alive(); err != nil {
		return -1, err
	}
	if err := chroot(root); err != nil {
		return -1, err
	}
	defer func() { c.lost = errors.Join(chroot(c.root), unix.Fchdir(c.proc)) }()
	return openPath(base, path, flags)
}

func chroot(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// file opens what one of the caller's descriptors is of, or its working directory.
func (c *caller) file(fd int32) (int, error) {
	if fd == unix.AT_FDCWD {
		return openPath(unix.AT_FDCWD, c.its("cwd"), 0)
	}
	if fd < 0 {
		return -1, unix.EBADF
	}
	own, err := openPath(unix.AT_FDCWD, c.its("fd/"+strconv.Itoa(int(fd))), 0)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EBADF
	}
	if err != nil {
		return -1, err
	}
	if err := c.alive(); err != nil {
		unix.Close(own)
		return -1, err
	}
	return own, nil
}

// opened tells whether a descriptor is of an open file, and not one that only names it (O_PATH).
func (c *caller) opened(fd int32) error {
	info, err := os.ReadFile(c.its("fdinfo/" + strconv.Itoa(int(fd))))
	if err != nil {
		return unix.EBADF
	}
	_, after, _ := strings.Cut(string(info), "flags:")
	octal, _, _ := strings.Cut(after, "\n")
	flags, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 32)
	if err != nil || flags&unix.O_PATH != 0 {
		return unix.EBADF
	}
	return nil
}

// named opens the file that a call names by a directory and a path, as the flags of the *at
// calls say. Path is the number of that argument.
func (c *caller) named(dirfd int32, path int, follow, mayBeEmpty bool) (int, error) {
	p, err := c.path(path)
	if err != nil {
		return -1, err
	}
	if p == "" && mayBeEmpty {
		return c.file(dirfd)
	}
	flags := unix.O_NOFOLLOW
	if follow {
		flags = 0
	}
	return c.open(dirfd, p, flags)
}

func openPath(dirfd int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, path, flags|unix.O_PATH|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// link names one of our own descriptors by its path in /proc, the working directory.
func link(fd int) string { return "self/fd/" + strconv.Itoa(fd) }
