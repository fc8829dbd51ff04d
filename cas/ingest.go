package cas

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// IngestOptions say what is known of a stream.
type IngestOptions struct {
	// Expect is the digest that the uncompressed tar must have; empty for any.
	Expect digest.Digest
	// AnyEnd takes a tar without an end marker too: the caller has another way to
	// tell that it is whole. With Expect, it is.
	AnyEnd bool
	// Allow, where it is set, is asked before more bytes of the uncompressed tar are
	// written, with their number. Its error ends the ingestion.
	Allow func(n int) error
}

// whole reports whether a tar needs no end marker.
func (o *IngestOptions) whole() bool { return o.Expect != "" || o.AnyEnd }

// Staged is a layer that has been read and written in full and is not in the
// store yet. It takes no name in the file system: a killed process leaves
// nothing of it.
type Staged struct {
	s       *Store
	digest  digest.Digest
	size    int64
	entries int
	blob    *os.File
	tree    *erofs.Tree // nil if the store had the content when it was read
	unnamed bool        // blob has no name yet
}

// Digest is the sha256 of the uncompressed tar: the layer's diff id.
func (st *Staged) Digest() digest.Digest { return st.digest }

// Size is the size of the uncompressed tar in bytes.
func (st *Staged) Size() int64 { return st.size }

// Entries is the number of members of the tar; 0 if the store had it already.
func (st *Staged) Entries() int { return st.entries }

// Ingest reads a layer, a tar that may be compressed with gzip, zstd, xz or bzip2,
// in one pass that decompresses, hashes, writes and parses it. The error
// wraps [ErrDigest] if the content is not the expected one, and is a
// *tarstream.Error that names entry and offset if the tar is not sound. The
// store is as before until the layer is published.
func (s *Store) Ingest(ctx context.Context, r io.Reader, o IngestOptions) (*Staged, error) {
	if o.Expect != "" {
		if err := o.Expect.Validate(); err != nil {
			return nil, fmt.Errorf("expected digest %q: %w", o.Expect, err)
		}
	}
	if st, err := s.ingestKnown(ctx, r, o); st != nil || err != nil {
		return st, err
	}
	content, done, err := Decompress(&ctxReader{ctx, r})
	if err != nil {
		return nil, err
	}
	defer done()
	if o.Allow != nil {
		content = &allowedReader{content, o.Allow}
	}
	blob, err := s.unnamedFile()
	if err != nil {
		return nil, err
	}
	st := &Staged{s: s, blob: blob, unnamed: true}
	var tree *layerTree
	st.digest, st.size, err = pump(content, blob, func(src *chunkSource) (err error) {
		tree, err = parseLayer(src, o.whole())
		return err
	})
	if err == nil {
		st.tree, st.entries = tree.Tree, tree.entries
		if !tree.ended && !o.whole() {
			// A digest would tell; without one, it may have been cut between two entries.
			err = fmt.Errorf("%w after %d entries: it has no end marker", tarstream.ErrTruncated, tree.entries)
		}
	}
	if err == nil && o.Expect != "" && o.Expect != st.digest {
		err = fmt.Errorf("%w: expected %s, found %s", ErrDigest, o.Expect, st.digest)
	}
	if err == nil {
		err = st.tree.SetDevice(1, st.digest.Encoded(), st.size)
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	st.tree.ReadDevice = func(_ int, p []byte, off int64) error {
		_, err := io.ReadFull(io.NewSectionReader(st.blob, off, int64(len(p))), p)
		return err
	}
	return st, nil
}

// ingestKnown looks whether an uncompressed file is in the store already: if there
// is a blob of its size, hashing alone tells. It returns nil if the file has to be
// read as any other.
func (s *Store) ingestKnown(ctx context.Context, r io.Reader, o IngestOptions) (*Staged, error) {
	f, ok := r.(io.ReadSeeker)
	if !ok {
		return nil, nil
	}
	start, size, err := restOf(f)
	if err != nil || !s.hasBlobOfSize(size) {
		return nil, err
	}
	sum := sha256.New()
	buf := make([]byte, chunkSize)
	n, err := io.CopyBuffer(sum, &ctxReader{ctx, f}, buf)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	d := digest.NewDigest(digest.SHA256, sum)
	blob, err := s.OpenBlob(d)
	if err == nil && o.Expect != "" && o.Expect != d {
		err = fmt.Errorf("%w: expected %s, found %s", ErrDigest, o.Expect, d)
		return nil, errors.Join(err, blob.Close())
	}
	if err == nil {
		// One that was cut short is not the content.
		if fi, statErr := blob.Stat(); statErr != nil || fi.Size() != n {
			err = errors.Join(statErr, blob.Close(), ErrNotExist)
		}
	}
	if err != nil {
		_, err := f.Seek(start, io.SeekStart)
		return nil, err
	}
	return &Staged{s: s, digest: d, size: n, blob: blob}, nil
}

// restOf is where a file is read from, and how many bytes of it are left: -1 for a pipe and the
// like.
func restOf(f io.Seeker) (start, size int64, err error) {
	if start, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, -1, nil
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, -1, nil
	}
	if _, err := f.Seek(start, io.SeekStart); err != nil {
		return 0, -1, fmt.Errorf("go back to the beginning: %w", err)
	}
	return start, end - start, nil
}

func (s *Store) hasBlobOfSize(size int64) bool {
	entries, err := os.ReadDir(s.path("blobs/sha256"))
	if err != nil {
		return false
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Size() == size {
			return true
		}
	}
	return false
}

// unnamedFile opens a new file in the file system of the blobs that has no name.
// Where that cannot be (O_TMPFILE is missing in some file systems), the file
// gets a name under scratch/ and loses it with [Staged.Close].
func (s *Store) unnamedFile() (*os.File, error) {
	f, err := os.OpenFile(s.path("blobs/sha256"), os.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o644)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("open temporary file: %w", err)
	}
	f, err = os.OpenFile(s.path(scratchDir, s.scratchName("blob")), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open temporary file: %w", err)
	}
	return f, nil
}

// Publish puts the layer into the store under its digest, durably and at once.
// If the store has the content, that stays. The store's lock must be held,
// shared, until something refers to the layer.
func (st *Staged) Publish() error {
	dst := st.s.BlobPath(st.digest)
	if err := st.publishBlob(dst); err != nil {
		return fmt.Errorf("publish blob %s: %w", st.digest, err)
	}
	if st.tree == nil {
		return nil
	}
	index := st.s.indexPath(st.digest)
	if _, err := os.Stat(index); err == nil {
		st.tree = nil
		return nil
	}
	err := st.s.writeIndex(index, st.tree)
	st.tree = nil
	return err
}

func (st *Staged) publishBlob(dst string) error {
	if fi, err := os.Stat(dst); err == nil && fi.Size() == st.size {
		return nil
	} else if err == nil {
		// Not what it was: the content is at hand, so put it right.
		if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !st.unnamed {
		// The blob that was there when the content was hashed has been collected
		// since. What has no name any more cannot get one again.
		if err := st.copyBlob(); err != nil {
			return err
		}
	}
	if err := st.blob.Chmod(0o444); err != nil {
		return err
	}
	if err := st.blob.Sync(); err != nil {
		return err
	}
	// linkat(2) with a path through /proc, as it works without capabilities.
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", st.blob.Fd()), unix.AT_FDCWD, dst, unix.AT_SYMLINK_FOLLOW)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.LinkError{Op: "link", Old: st.blob.Name(), New: dst, Err: err}
	}
	return SyncDir(filepath.Dir(dst))
}

// copyBlob moves the content to a new file without a name.
func (st *Staged) copyBlob() error {
	f, err := st.s.unnamedFile()
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(st.blob, 0, st.size)); err != nil {
		return errors.Join(err, f.Close())
	}
	old := st.blob
	st.blob, st.unnamed = f, true
	return old.Close()
}

// Close gives up what was not published.
func (st *Staged) Close() error {
	if st.blob == nil {
		return nil
	}
	var err error
	if st.unnamed && filepath.Dir(st.blob.Name()) == st.s.path(scratchDir) {
		err = os.Remove(st.blob.Name())
	}
	err = errors.Join(err, st.blob.Close())
	st.blob, st.tree = nil, nil
	return err
}

// StageBlob returns a layer that is in the store as if it had been read anew. The
// error wraps [ErrNotExist] if it is not there. Its content is not looked at.
func (s *Store) StageBlob(d digest.Digest) (*Staged, error) {
	blob, err := s.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	info, err := blob.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open blob: %w", err), blob.Close())
	}
	return &Staged{s: s, digest: d, size: info.Size(), blob: blob}, nil
}

// allowedReader asks for each piece.
type allowedReader struct {
	r     io.Reader
	allow func(n int) error
}

func (r *allowedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if refused := r.allow(n); refused != nil {
		return 0, refused
	}
	return n, err
}

// ctxReader ends reading when a context is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
