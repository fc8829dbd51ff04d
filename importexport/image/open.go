package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/progress"
	"golang.org/x/sys/unix"
)

// OpenOptions are how to read an image. The zero value is fine.
type OpenOptions struct {
	// Platform is for which platform it is wanted. Unless it is the zero value, an image
	// for another one is refused; an index always tells.
	Platform Platform
	// MaxSize is how many bytes the layers may have uncompressed; 0: what is usual for
	// their compressed size, below 0: any number.
	MaxSize int64
	// Display is told about archives that take their time; nil: nobody is.
	Display progress.Display
}

// Open finds the image of an archive or a layout. An archive that is compressed, or cannot be read but
// from its beginning to its end, is read then and there, and its layers are staged in st, where
// only [Keep] finds them. The error wraps [ErrNotFound] if there is no such image.
func Open(ctx context.Context, st *cas.Store, r Ref, o OpenOptions) (*Image, error) {
	if r.Transport == Layout {
		fsys, err := openDir(r.Path)
		if err != nil {
			return nil, err
		}
		im, err := layoutImage(fsys, r, o.Platform)
		return closeUnlessOpened(im, err, fsys)
	}
	f, err := os.Open(r.Path)
	if err != nil {
		return nil, err
	}
	seekable, err := isPlainTar(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !seekable {
		file := progress.NewReader(f, o.Display)
		im, err := ReadArchive(ctx, st, file, r, o)
		file.Close()
		return im, errors.Join(err, f.Close())
	}
	fsys, err := openTar(f)
	if err != nil {
		return nil, err
	}
	im, err := archiveImage(fsys, r, o.Platform)
	return closeUnlessOpened(im, err, fsys)
}

func closeUnlessOpened(im *Image, err error, fsys files) (*Image, error) {
	if err != nil {
		return nil, errors.Join(err, fsys.Close())
	}
	return im, nil
}

// isPlainTar reports whether f is a file that need not be read from its beginning to its end.
func isPlainTar(f *os.File) (bool, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return false, err
	case info.IsDir():
		return false, &hinted{&fs.PathError{Op: "read", Path: f.Name(), Err: unix.EISDIR}, "oci:DIR is a layout in a directory"}
	case !info.Mode().IsRegular():
		return false, nil
	}
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	at, err := f.Seek(0, io.SeekCurrent) // of standard input, some may have been read
	return at == 0 && cas.Compression(head[:n]) == "", err
}

// ReadArchive reads an image out of an archive that may be compressed, in one pass. Its layers are staged
// in st: they take no name there, and are gone when the image is closed.
func ReadArchive(ctx context.Context, st *cas.Store, r io.Reader, ref Ref, o OpenOptions) (*Image, error) {
	b := &budget{limit: o.MaxSize}
	content, done, err := cas.Decompress(b.count(r))
	if err != nil {
		return nil, err
	}
	defer done()
	fsys, err := readTar(ctx, st, bufio.NewReaderSize(content, 1<<20), b.allow)
	if err != nil {
		return nil, err
	}
	im, err := archiveImage(fsys, ref, o.Platform)
	return closeUnlessOpened(im, err, fsys)
}

// archiveImage reads an image of docker save or of an OCI layout, whichever the archive has; both,
// if it is a new one of docker's.
func archiveImage(fsys files, r Ref, p Platform) (*Image, error) {
	read := []func(files, Ref, Platform) (*Image, error){dockerImage, layoutImage}
	if r.Transport == Archive {
		read[0], read[1] = read[1], read[0]
	}
	var im *Image
	var err error
	for _, read := range read {
		im, err = read(fsys, r, p)
		if !errors.Is(err, errNoList) {
			return im, err
		}
	}
	return nil, &hinted{
		fmt.Errorf("%w: neither an archive of docker save nor of an OCI layout", ErrNotFound),
		"plash-import-tar takes the tar of a root filesystem",
	}
}

// errNoList says that an archive does not have the list of its images at that place.
var errNoList = fmt.Errorf("%w: there is no list of images", ErrNotFound)
