package union

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// marks are how deletions are noted, in the forms that the kernel's
// Documentation/filesystems/overlayfs.rst gives ("Whiteouts and opaque directories"):
// a deleted name is a character device 0:0, or an empty file with the attribute
// overlay.whiteout in a directory with overlay.opaque=x; a directory that hides
// what is below has overlay.opaque=y.
type marks struct {
	prefix  string // of overlayfs' attributes: trusted.overlay. or user.overlay.
	devices bool   // character devices 0:0 can be made

	mu   sync.Mutex
	have bool // a whiteout lies ready, to be linked to where it is needed
}

const (
	opaqueAttr   = "opaque"
	whiteoutAttr = "whiteout"
	// readyMark is the name, in the work directory, of the file that all whiteouts
	// are links of.
	readyMark = "#whiteout"
)

// probe finds out what can be made in the work directory.
func (m *marks) probe(u *FS, xattrs bool) error {
	name := u.tmpName()
	m.prefix = "trusted.overlay."
	if err := unix.Mkdirat(u.work, name, 0o700); err != nil {
		return err
	}
	p := place{fd: u.work, name: name}
	err := p.setxattr(m.prefix+opaqueAttr, []byte("y"), 0)
	if xattrs || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		m.prefix = "user.overlay."
		err = p.setxattr(m.prefix+opaqueAttr, []byte("y"), 0)
	}
	if err != nil {
		err = fmt.Errorf("mark a directory: %w", err)
	}
	if err := errors.Join(err, unix.Unlinkat(u.work, name, unix.AT_REMOVEDIR)); err != nil {
		return err
	}
	if xattrs {
		return nil
	}
	switch err := unix.Mknodat(u.work, name, unix.S_IFCHR, 0); {
	case err == nil:
		m.devices = true
		return unix.Unlinkat(u.work, name, 0)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return nil
	default:
		return fmt.Errorf("make a whiteout: %w", err)
	}
}

func (m *marks) close(u *FS) error {
	if !m.have {
		return nil
	}
	m.have = false
	return unix.Unlinkat(u.work, readyMark, 0)
}

// fits tells whether a file of a type can have attributes of ours: user.* ones are for
// regular files and directories.
func (m *marks) fits(typ uint32) bool {
	return m.prefix != "user.overlay." || typ == unix.S_IFREG || typ == unix.S_IFDIR
}

// mine tells which attributes are notes on the layers, and nobody's to see.
func mine(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// of reads the marks of a directory that has just become a node.
func (m *marks) of(n *node, p place) error {
	var buf [8]byte
	for _, prefix := range []string{"trusted.overlay.", "user.overlay."} {
		k, err := p.getxattr(prefix+opaqueAttr, buf[:])
		switch {
		case err == nil && string(buf[:k]) == "y":
			n.merged, n.origin = false, n.origin && n.pinned // the root stays number 1
		case err == nil && string(buf[:k]) == "x":
			n.xwhite.Store(true)
		case err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ERANGE):
			return err
		}
	}
	return nil
}

// isWhiteout tells of an entry of the upper directory that it deletes its name.
func (m *marks) isWhiteout(dir *node, st *unix.Stat_t, p place) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return st.Rdev == 0
	case unix.S_IFREG:
		if st.Size > 0 || !dir.xwhite.Load() {
			return false
		}
		for _, prefix := range []string{"trusted.overlay.", "user.overlay."} {
			if _, err := p.getxattr(prefix+whiteoutAttr, make([]byte, 8)); err == nil || errors.Is(err, unix.ERANGE) {
				return true
			}
		}
	}
	return false
}

// whiteout makes a whiteout at a name of the work directory or of dir, where there is
// nothing yet. All of them are links of one file, as overlayfs has it.
func (u *FS) whiteout(fd int, name string) error {
	m := &u.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if !m.have {
			if err := m.ready(u); err != nil {
				return err
			}
		}
		err := unix.Linkat(u.work, readyMark, fd, name, 0)
		if !errors.Is(err, unix.EMLINK) {
			return err
		}
		if err := m.close(u); err != nil {
			return err
		}
	}
}

func (m *marks) ready(u *FS) error {
	if m.devices {
		if err := unix.Mknodat(u.work, readyMark, unix.S_IFCHR, 0); err != nil {
			return err
		}
		m.have = true
		return nil
	}
	fd, err := unix.Openat(u.work, readyMark, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	m.have = true
	return errors.Join(unix.Fsetxattr(fd, m.prefix+whiteoutAttr, []byte("y"), 0), unix.Close(fd))
}

// expectWhiteouts marks a directory in which there will be whiteouts, where their form
// needs it.
func (u *FS) expectWhiteouts(dir *node) error {
	if u.marks.devices || dir.xwhite.Load() {
		return nil
	}
	p, err := u.place(dir)
	if err != nil {
		return err
	}
	defer p.done(u)
	if err := p.setxattr(u.marks.prefix+opaqueAttr, []byte("x"), 0); err != nil {
		return err
	}
	dir.xwhite.Store(true)
	return nil
}

// makeOpaque has a directory hide what is below it.
func (u *FS) makeOpaque(p place) error {
	return p.setxattr(u.marks.prefix+opaqueAttr, []byte("y"), 0)
}

func (u *FS) tmpName() string { return fmt.Sprintf("#%x", u.tmp.Add(1)) }
