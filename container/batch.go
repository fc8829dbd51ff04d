package container

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// batch writes files and syncs them together. The first error stays, and makes
// the rest do nothing.
type batch struct {
	open []*os.File // written, not yet synced
	err  error
}

// write makes a new file.
func (b *batch) write(path string, content []byte) {
	if b.err != nil {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		b.err = err
		return
	}
	b.open = append(b.open, f)
	_, b.err = f.Write(content)
}

// dir has a directory synced too, for the names in it.
func (b *batch) dir(path string) {
	if b.err != nil {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		b.err = err
		return
	}
	b.open = append(b.open, f)
}

// sync makes all of it durable and closes it.
func (b *batch) sync() error {
	for _, f := range b.open {
		if b.err == nil {
			b.err = syncFile(f)
		}
	}
	b.close()
	return b.err
}

// close closes what is open.
func (b *batch) close() {
	for _, f := range b.open {
		b.err = errors.Join(b.err, f.Close())
	}
	b.open = nil
}

// syncFile is fsync. Some network filesystems cannot sync a directory and say
// so; that is no error.
func syncFile(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}
