// Package output writes what is exported to where the user wants it: a file that is
// replaced only when it is complete, a pipe, a device. It tells trouble with that place
// from trouble with the store, and copies out of the store without the bytes
// passing through this process where the kernel can do that.
package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A WriteError says that what was exported could not be written to where it was
// to go: that place, not the store, is full or damaged.
type WriteError struct {
	Name string // of the file, as it was given
	Err  error
}

func (e *WriteError) Error() string { return fmt.Sprintf("write %s: %v", e.Name, e.Err) }
func (e *WriteError) Unwrap() error { return e.Err }

// writeError gives an error the name that the user knows the file by: that in
// a [fs.PathError] is of a temporary file.
func writeError(name string, err error) error {
	if err == nil {
		return nil
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &WriteError{Name: name, Err: err}
}

// NewWriter returns a writer to w whose errors are of type [WriteError].
// It has no ReadFrom, as that of a file would copy in smaller pieces than its
// callers do; [Copy] knows it.
func NewWriter(w io.Writer, name string) io.Writer { return &namedWriter{w, name} }

type namedWriter struct {
	io.Writer
	name string
}

func (w *namedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, writeError(w.name, err)
}

// copyPiece is what is copied before it is looked whether that is still wanted, and told.
const copyPiece = 16 << 20

// inPieces calls do for one piece of n bytes after the other, from off on. count is told of
// each that is done.
func inPieces(ctx context.Context, off, n int64, count func(int64), do func(off, n int64) error) error {
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k := min(n, copyPiece)
		if err := do(off, k); err != nil {
			return err
		}
		count(k)
		off, n = off+k, n-k
	}
	return nil
}

// Copy writes n bytes of src, from off on, to w. Where w is [NewWriter]'s to a file, the
// kernel copies them, or lets both files share them. A src that is shorter is
// [io.ErrUnexpectedEOF]. count is told how many more bytes are copied, again and again.
func Copy(ctx context.Context, w io.Writer, src *os.File, off, n int64, count func(int64)) error {
	return inPieces(ctx, off, n, count, func(off, n int64) error { return copyPart(w, src, off, n) })
}

func copyPart(w io.Writer, src *os.File, off, n int64) error {
	if named, ok := w.(*namedWriter); ok {
		if dst, ok := named.Writer.(*os.File); ok {
			done, err := copyRange(dst, nil, named.name, src, off, n)
			if err != nil {
				return err
			}
			off, n = off+done, n-done
		}
	}
	return copyBytes(w, src, off, n)
}

// copyRange copies what copy_file_range(2) will: all, or nothing where it does not know
// these files (it takes regular ones, of any two filesystems since Linux 5.3). at is where
// in dst, nil: where it stands. Tests: TestCopy.
func copyRange(dst *os.File, at *int64, name string, src *os.File, off, n int64) (done int64, err error) {
	for done < n {
		from := off + done
		k, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), at, int(min(n-done, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
			return done, writeError(name, err)
		case err != nil, k == 0:
			// Reading and writing will do it, or tell whose fault it is.
			return done, nil
		}
		done += int64(k)
	}
	return done, nil
}

// copyBuffer is what is read at once.
const copyBuffer = 1 << 20

func copyBytes(w io.Writer, src *os.File, off, n int64) error {
	if n == 0 {
		return nil
	}
	buf := make([]byte, min(n, copyBuffer))
	for n > 0 {
		k, err := src.ReadAt(buf[:min(n, copyBuffer)], off)
		if k == 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read %d bytes at %d of %s: %w", n, off, src.Name(), err)
		}
		if _, err := w.Write(buf[:k]); err != nil {
			return err
		}
		off, n = off+int64(k), n-int64(k)
	}
	return nil
}

// An Image is a file that is written in any order. Its errors are of type [WriteError].
type Image struct {
	f    *os.File
	name string
}

// WriteAt writes p at an offset.
func (im *Image) WriteAt(p []byte, off int64) (int, error) {
	n, err := im.f.WriteAt(p, off)
	return n, writeError(im.name, err)
}

// Copy writes n bytes of src, from off on, at an offset of the image. count is as that of [Copy].
func (im *Image) Copy(ctx context.Context, at int64, src *os.File, off, n int64, count func(int64)) error {
	ahead := at - off
	return inPieces(ctx, off, n, count, func(off, n int64) error { return im.copyPart(off+ahead, src, off, n) })
}

func (im *Image) copyPart(at int64, src *os.File, off, n int64) error {
	done, err := copyRange(im.f, &at, im.name, src, off, n) // which moves at on
	if err != nil {
		return err
	}
	return copyBytes(io.NewOffsetWriter(im, at), src, off+done, n-done)
}

// Truncate gives the image its size. What was not written is zeros.
func (im *Image) Truncate(size int64) error {
	return writeError(im.name, im.f.Truncate(size))
}

// File is the file itself, for a program that writes to it.
func (im *Image) File() *os.File { return im.f }
