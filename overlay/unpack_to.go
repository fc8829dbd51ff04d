package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// LeftOut says what of a tree the host did not allow to be made.
type LeftOut struct {
	// Owners: some entries belong to the caller instead, and programs that would run as their
	// owner do not.
	Owners bool
	// Attributes: some extended attributes are missing.
	Attributes bool
	// Devices: some devices are missing.
	Devices bool
}

// A Meter is told how the making of a tree goes, which is counted in bytes of data: how many there
// are, and then how many more are copied, by several goroutines.
type Meter interface {
	Expect(total int64)
	Add(n int64)
}

// UnpackTo makes the tree of a view in dir, an empty directory that is not in the store.
// A plain user gets what he may make of it, and is told what is left out; all modes
// are as they are in the index. An error leaves behind what there is by then, and the caller
// may remove it. The meter may be nil.
func UnpackTo(ctx context.Context, s *cas.Store, v *cas.View, dir string, m Meter) (_ LeftOut, err error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return LeftOut{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	if err := removeDefaultACL(root); err != nil {
		return LeftOut{}, fmt.Errorf("unpack into %s: %w", dir, err)
	}
	u := newUnpacker(ctx, s, v.Index, root)
	u.blobs.view = v // whose blobs are open, should they be removed
	if os.Geteuid() != 0 {
		u.lenient = true
	}
	u.left = &leftOut{}
	u.tell(m)
	u.push(unpackJob{nid: v.Root()})
	err = errors.Join(u.run(u.worker), u.blobs.close())
	if err == nil {
		err = u.left.closeDirs(root)
	}
	return u.left.LeftOut, err
}

// leftOut notes what is left out, and which directories are still open to their owner who
// shall not be.
type leftOut struct {
	mu sync.Mutex
	LeftOut
	closed []closedDir
}

type closedDir struct {
	path string
	mode uint32
}

func (l *leftOut) note(f func(*LeftOut)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.LeftOut)
}

func (l *leftOut) device()    { l.note(func(o *LeftOut) { o.Devices = true }) }
func (l *leftOut) attribute() { l.note(func(o *LeftOut) { o.Attributes = true }) }

// owner gives the mode of an entry that could not be given away: what is to run as somebody
// else must not run as who makes it.
func (l *leftOut) owner(in *erofs.Inode, mode uint32) uint32 {
	l.note(func(o *LeftOut) { o.Owners = true })
	if in.IsRegular() {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return mode
}

// open gives the mode that a directory has until all is made: its owner, who may be a plain
// user, must get through.
func (l *leftOut) open(path string, mode uint32) uint32 {
	if l == nil || mode&0o700 == 0o700 {
		return mode
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = append(l.closed, closedDir{path, mode})
	return mode | 0o700
}

// closeDirs gives directories the modes that they shall have, what lies below first.
func (l *leftOut) closeDirs(root int) error {
	slices.SortFunc(l.closed, func(a, b closedDir) int { return strings.Compare(b.path, a.path) })
	for _, d := range l.closed {
		fd, err := openDirBelow(root, d.path)
		if err == nil {
			err = errors.Join(unix.Fchmod(fd, d.mode), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("set mode of %q: %w", d.path, err)
		}
	}
	return nil
}
