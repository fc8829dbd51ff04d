package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// interruptible gives a reader of f whose reads end with the context, also while
// they wait for a pipe that nobody writes to. A regular file is read as it is.
//
// The file is not made non-blocking for that: it is shared with other processes,
// which would see that too.
func interruptible(ctx context.Context, f *os.File) (io.Reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if info.Mode().IsRegular() {
		return f, nil
	}
	wake, ended, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	context.AfterFunc(ctx, func() { ended.Close() }) //nolint:errcheck // nothing was written
	return &patientReader{ctx: ctx, file: f, wake: wake}, nil
}

// patientReader waits for its file and for the end of a context at once.
type patientReader struct {
	ctx  context.Context
	file *os.File
	wake *os.File // its other end is closed when the context ends
}

func (r *patientReader) Read(p []byte) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(r.file.Fd()), Events: unix.POLLIN},
		{Fd: int32(r.wake.Fd()), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", r.file.Name(), err)
		case fds[1].Revents != 0:
			return 0, context.Cause(r.ctx)
		}
		return r.file.Read(p)
	}
}

// lateInput is a file that is looked at when it is first read.
type lateInput struct {
	ctx  context.Context
	file *os.File
	r    io.Reader
}

func (l *lateInput) Read(p []byte) (n int, err error) {
	if l.r == nil {
		if l.r, err = interruptible(l.ctx, l.file); err != nil {
			return 0, err
		}
	}
	return l.r.Read(p)
}
