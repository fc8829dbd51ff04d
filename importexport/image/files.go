package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// files are the members of an archive or a layout by their names, which are relative and clean.
// What is not there is an error that wraps [fs.ErrNotExist].
type files interface {
	// document returns the whole of a member of at most [MaxDocument] bytes.
	document(name string) ([]byte, error)
	// layer finds a member that is a layer.
	layer(name string) (held, error)
	io.Closer
}

// held is a layer where it lies.
type held struct {
	size   int64
	open   func() (io.ReadCloser, error)
	staged *cas.Staged // set instead of open where it has been read already
}

// blobName is where a layout has the blob of a digest: OCI image specification, image-layout.md.
func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// blobDigest is the digest of the blob at name, "" if that is no blob's.
func blobDigest(name string) digest.Digest {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return ""
	}
	algorithm, hex, _ := strings.Cut(rest, "/")
	d := digest.Digest(algorithm + ":" + hex)
	if d.Validate() != nil {
		return ""
	}
	return d
}

// dirFiles are the files of a layout's directory. Symbolic links cannot lead out of it.
type dirFiles struct{ root *os.Root }

func openDir(dir string) (*dirFiles, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &dirFiles{root}, nil
}

func (d *dirFiles) open(name string) (*os.File, int64, error) {
	// O_NONBLOCK, as it may be a pipe that nobody writes to.
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (d *dirFiles) document(name string) ([]byte, error) {
	f, size, err := d.open(name)
	if err != nil {
		return nil, err
	}
	b, err := readDocument(f, name, size)
	return b, errors.Join(err, f.Close())
}

func (d *dirFiles) layer(name string) (held, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return held{}, err
	}
	return held{size: info.Size(), open: func() (io.ReadCloser, error) {
		f, _, err := d.open(name)
		return f, err
	}}, nil
}

func (d *dirFiles) Close() error { return d.root.Close() }

// readDocument reads a member of size bytes.
func readDocument(r io.Reader, name string, size int64) ([]byte, error) {
	if size > MaxDocument {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrMalformed, name, size, MaxDocument)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// tarFiles are the members of an uncompressed archive that can be read at any place.
type tarFiles struct {
	f       *os.File
	members map[string]tarMember
	marked  bool // it has an end marker
}

// tarMember is where a member's content lies, or which other one it links to.
type tarMember struct {
	off, size int64
	link      string
}

const (
	// maxMembers is how many members an archive of images may have.
	maxMembers = 1 << 20
	// maxLinks is how many links may lead from one member to the next.
	maxLinks = 8
)

// openTar finds the members of an archive, and passes over their content. It owns f from then on.
func openTar(f *os.File) (_ *tarFiles, err error) {
	t := &tarFiles{f: f, members: map[string]tarMember{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	r := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			t.marked, err = endsWithZeros(f)
			return t, err
		}
		if err != nil {
			return nil, archiveError(err)
		}
		if n == maxMembers {
			return nil, fmt.Errorf("%w: more than %d members in the archive", ErrMalformed, maxMembers)
		}
		name, m, ok := memberOf(h)
		if !ok {
			continue
		}
		// The reader takes headers alone, so the file stands where the content begins.
		if m.off, err = f.Seek(0, io.SeekCurrent); err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		t.members[name] = m
	}
}

// endsWithZeros tells whether the last block of a file is one of an end marker.
func endsWithZeros(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("archive: %w", err)
	}
	var block [512]byte
	n, err := f.ReadAt(block[:], max(info.Size()-int64(len(block)), 0))
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("archive: %w", err)
	}
	return n == len(block) && block == [512]byte{}, nil
}

// archiveError says in plain words why an archive cannot be read on.
func archiveError(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: not a tar archive, or a damaged one", ErrMalformed)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive is cut off: %w", err)
	}
	return fmt.Errorf("archive: %w", err)
}

// memberOf is what an entry of an archive is, if it can be of use: a file or a link.
func memberOf(h *tar.Header) (name string, m tarMember, ok bool) {
	name = cleanName(h.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return "", m, false // its content is not in one piece; nobody writes that
			}
		}
		return name, tarMember{size: h.Size}, true
	case tar.TypeSymlink:
		// docker save used to write layers that two images share as links.
		return name, tarMember{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}, true
	case tar.TypeLink:
		return name, tarMember{link: cleanName(h.Linkname)}, true
	}
	return "", m, false
}

func cleanName(name string) string { return path.Join("/", name)[1:] }

// follow finds a member, or that which it links to, with a function that looks one up.
func follow(name string, look func(string) (tarMember, bool)) (string, tarMember, error) {
	at := cleanName(name)
	for range maxLinks {
		m, ok := look(at)
		if !ok {
			return "", m, &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
		}
		if m.link == "" {
			return at, m, nil
		}
		at = m.link
	}
	return "", tarMember{}, fmt.Errorf("%w: %s is a link of a link, %d times over", ErrMalformed, name, maxLinks)
}

func (t *tarFiles) find(name string) (tarMember, error) {
	_, m, err := follow(name, func(n string) (tarMember, bool) { m, ok := t.members[n]; return m, ok })
	if errors.Is(err, fs.ErrNotExist) && !t.marked {
		err = fmt.Errorf("the archive is cut off, it has no end marker: %w", err)
	}
	return m, err
}

func (t *tarFiles) document(name string) ([]byte, error) {
	m, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return readDocument(io.NewSectionReader(t.f, m.off, m.size), name, m.size)
}

func (t *tarFiles) layer(name string) (held, error) {
	m, err := t.find(name)
	if err != nil {
		return held{}, err
	}
	return held{size: m.size, open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(t.f, m.off, m.size)), nil
	}}, nil
}

func (t *tarFiles) Close() error { return t.f.Close() }
