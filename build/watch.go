package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// hashPath returns the digest of a file or of a directory with all below it: of
// names, types, permissions, link targets, device numbers and content, as [readTree] has it.
// Owners, times and the path itself are left out, so that it means the same on every
// machine. A link that is path itself is followed, others are not.
func hashPath(ctx context.Context, path string) (digest.Digest, error) {
	t, err := readTree(ctx, path, nil)
	if err != nil {
		return "", err
	}
	return t.digest, nil
}

// entry is what counts of a file of the host.
type entry struct {
	name  string
	kind  byte
	mode  uint32
	value string
}

// describe looks at a file, but not into it.
func describe(path string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	e := entry{mode: st.Mode & 0o7777}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.kind = 'f'
	case unix.S_IFDIR:
		e.kind = 'd'
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return entry{}, err
		}
		// What permissions a link shows depends on the filesystem.
		e.kind, e.mode, e.value = 'l', 0o777, target
	case unix.S_IFIFO:
		e.kind = 'p'
	case unix.S_IFSOCK:
		e.kind = 's'
	case unix.S_IFCHR, unix.S_IFBLK:
		e.kind = 'c'
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.kind = 'b'
		}
		e.value = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	default:
		return entry{}, fmt.Errorf("%s: unknown file type %#o", path, st.Mode)
	}
	return e, nil
}

// hashFile returns the SHA-256 of a file's content, as bytes. Should the file
// have become something else since it was listed, it is not waited for.
func hashFile(ctx context.Context, path string) (sum string, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	h := sha256.New()
	if _, err := io.CopyBuffer(h, &contextReader{ctx, f}, *buf); err != nil {
		return "", err
	}
	return string(h.Sum(nil)), nil
}

// copyBuffers saves trees of many small files an allocation for each of them.
var copyBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 128<<10)
	return &buf
}}

// contextReader stops when ctx is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
