package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	goruntime "runtime"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// A hostTree is a file of the host, or a directory with all below it.
type hostTree struct {
	root    string   // without symbolic links
	entries []*entry // root first, a directory before what is in it
	digest  digest.Digest
}

// readTree looks at all that a path of the host leads to, but what ignore excludes. The
// files are read by several goroutines while directories are still being listed.
//
// The digest is the SHA-256 of one record for each entry: path itself first,
// under an empty name, then what is below it, a directory before its entries,
// those in byte order of their names. A record is a type letter ("f" file, "d"
// directory, "l" symbolic link, "p" FIFO, "s" socket, "c" and "b" device), the
// name relative to path, the permission bits in octal with set-id and sticky bits,
// and a value: the SHA-256 of a file, the target of a link, "MAJOR:MINOR" of a
// device, else nothing. Name, permissions and value are preceded by their length
// as 8 bytes, big end first.
func readTree(ctx context.Context, path string, ignore *ignoreList) (*hostTree, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	t := &hostTree{root: root}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(goruntime.GOMAXPROCS(0))
	err = t.walk(ctx, ignore, func(e *entry) {
		group.Go(func() (err error) {
			e.value, err = hashFile(ctx, filepath.Join(root, e.name))
			return err
		})
	})
	// The first error of the two is the one that ended the other.
	if hashErr := group.Wait(); err == nil || hashErr != nil && errors.Is(err, context.Canceled) {
		err = hashErr
	}
	if err != nil {
		return nil, err
	}
	t.sum()
	return t, nil
}

// walk lists the tree, and calls file for each regular file.
func (t *hostTree) walk(ctx context.Context, ignore *ignoreList, file func(*entry)) error {
	return filepath.WalkDir(t.root, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		name := ""
		if path != t.root {
			if name, err = filepath.Rel(t.root, path); err != nil {
				return err
			}
			if ignore.excludes(name, d.IsDir()) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		e, err := describe(path)
		if err != nil {
			return err
		}
		e.name = name
		t.entries = append(t.entries, &e)
		if e.kind == 'f' {
			file(&e)
		}
		return nil
	})
}

func (t *hostTree) sum() {
	var b bytes.Buffer
	h := sha256.New()
	for _, e := range t.entries {
		b.Reset()
		b.WriteByte(e.kind)
		for _, field := range []string{e.name, strconv.FormatUint(uint64(e.mode), 8), e.value} {
			b.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
			b.WriteString(field)
		}
		h.Write(b.Bytes())
	}
	t.digest = digest.NewDigest(digest.SHA256, h)
}
