package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// hashPath returns the digest of a file or of a directory with all below it: of
// names, types, permissions, link targets, device numbers and content. Owners,
// times and the path itself are left out, so that it means the same on every
// machine. A link that is path itself is followed, others are not.
//
// The digest is the SHA-256 of one record for each entry: path itself first,
// under an empty name, then what is below it, a directory before its entries,
// those in byte order of their names. A record is a type letter ("f" file, "d"
// directory, "l" symbolic link, "p" FIFO, "s" socket, "c" and "b" device), the
// name relative to path, the permission bits in octal with set-id and sticky bits,
// and a value: the SHA-256 of a file, the target of a link, "MAJOR:MINOR" of a
// device, else nothing. Name, permissions and value are preceded by their length
// as 8 bytes, big end first.
func hashPath(ctx context.Context, path string) (digest.Digest, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	entries, err := list(ctx, root)
	if err != nil {
		return "", err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(goruntime.GOMAXPROCS(0))
	for i := range entries {
		e := &entries[i]
		if e.kind != 'f' {
			continue
		}
		group.Go(func() (err error) {
			e.value, err = hashFile(ctx, filepath.Join(root, e.name))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	var b bytes.Buffer
	h := sha256.New()
	for _, e := range entries {
		b.Reset()
		b.WriteByte(e.kind)
		for _, field := range []string{e.name, strconv.FormatUint(uint64(e.mode), 8), e.value} {
			b.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
			b.WriteString(field)
		}
		h.Write(b.Bytes())
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// entry is what counts of a file below a watched path.
type entry struct {
	name  string
	kind  byte
	mode  uint32
	value string
}

// list returns everything below root, without the content of files.
func list(ctx context.Context, root string) ([]entry, error) {
	var entries []entry
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		e, err := describe(path)
		if err != nil {
			return err
		}
		if path != root {
			if e.name, err = filepath.Rel(root, path); err != nil {
				return err
			}
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

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
