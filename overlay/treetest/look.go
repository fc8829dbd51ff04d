package treetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mtime is that of all entries of layers that are written by hand.
var mtime = time.Unix(1234567890, 0)

// farPieces are the places of data in a file of several TiB, and farData those of
// words in them. Layers may have as large pieces and holes as they like, but not small
// ones all over such a file: ARCHITECTURE.md, "The index".
var (
	farPieces = [][2]int64{{1<<32 - 16<<20, 1<<32 + 16<<20}, {5 << 40, 5<<40 + 16<<20}}
	farData   = []int64{1<<32 - 16<<20, 1<<32 - 4, 1<<32 + 1000, 5 << 40, 5<<40 + 15<<20 + 1}
)

func lstat(t *testing.T, root, name string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
		t.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

// checkFar reads the file with data far away.
func checkFar(size int64) func(t *testing.T, root string) {
	return func(t *testing.T, root string) {
		f, err := os.Open(filepath.Join(root, "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if fi, err := f.Stat(); err != nil || fi.Size() != size {
			t.Errorf("size is %d, want %d: %v", fi.Size(), size, err)
		}
		for _, off := range farData {
			want := []byte(fmt.Sprint("data at ", off))
			got := make([]byte, len(want)+100)
			if n, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got[:len(want)], want) {
				t.Errorf("at %d: %q, %v", off, got[:n], err)
			}
		}
		hole := make([]byte, 1<<16)
		if _, err := f.ReadAt(hole, 3<<40+17); err != nil || !bytes.Equal(hole, make([]byte, len(hole))) {
			t.Errorf("hole is not empty: %v", err)
		}
	}
}

// consistent wants directories to say of their entries what stat(2) says, and inode
// numbers to be unique.
func consistent(t *testing.T, root string) {
	t.Helper()
	seen := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return eachDirent(path, func(ino uint64, typ byte, name string) error {
			if name == "." || name == ".." {
				return nil
			}
			p := filepath.Join(path, name)
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return &fs.PathError{Op: "lstat", Path: p, Err: err}
			}
			if st.Ino != ino || st.Mode>>12 != uint32(typ) {
				t.Errorf("%q: listed with inode %d and type %d, and has %d and %d", p, ino, typ, st.Ino, st.Mode>>12)
			}
			if other, ok := seen[st.Ino]; ok && st.Nlink == 1 {
				t.Errorf("%q and %q have the same inode number", other, p)
			}
			seen[st.Ino] = p
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func eachDirent(dir string, f func(ino uint64, typ byte, name string) error) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	for {
		buf := make([]byte, 8192)
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return &fs.PathError{Op: "list", Path: dir, Err: err}
		}
		if n == 0 {
			return nil
		}
		// struct linux_dirent64: inode, offset, length, type, name.
		for b := buf[:n]; len(b) > 0; b = b[binary.NativeEndian.Uint16(b[16:]):] {
			name, _, _ := bytes.Cut(b[19:binary.NativeEndian.Uint16(b[16:])], []byte{0})
			if err := f(binary.NativeEndian.Uint64(b), b[18], string(name)); err != nil {
				return err
			}
		}
	}
}

// readOnly wants nothing to be changeable.
func readOnly(t *testing.T, root string) {
	t.Helper()
	p := filepath.Join(root, "not there")
	for what, err := range map[string]error{
		"create":  os.WriteFile(p, nil, 0o644),
		"mkdir":   unix.Mkdir(p, 0o755),
		"symlink": unix.Symlink("x", p),
		"chmod":   unix.Chmod(root, 0o700),
		"times":   os.Chtimes(root, mtime, mtime),
		"xattr":   unix.Setxattr(root, "trusted.new", nil, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s in a read-only mount: %v", what, err)
		}
	}
}

// aclFor is a list that lets a user read.
func aclFor(uid uint32) []byte {
	const none = 1<<32 - 1
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, none}, {0x02, 4, uid}, {0x04, 0, none}, {0x10, 4, none}, {0x20, 0, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// openAs opens a file of the root directory as a user, on a thread that ends with it.
// The path above the root need not let the user through.
func openAs(t *testing.T, uid int, root, name string) error {
	t.Helper()
	result := make(chan error)
	go func() {
		goruntime.LockOSThread() // and never unlocked
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(root)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); err == nil && errno != 0 {
			err = errno
		}
		if err == nil {
			var fd int
			if fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				err = unix.Close(fd)
			}
		}
		_ = unix.Chdir("/") // the thread itself ends some time later
		result <- err
	}()
	err := <-result
	if err == nil {
		return nil
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	return errno
}
