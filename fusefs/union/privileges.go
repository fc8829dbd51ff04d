package union

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A set-user-ID or set-group-ID bit goes when an ordinary user writes to the file, and
// file capabilities go whoever does. Where it is us who write, the kernel says when
// (FUSE_HANDLE_KILLPRIV_V2). Where it writes by itself, with our rights, the capabilities
// go all the same, but not the bits. Such a file is not handed over, then; and if it
// gets the bits afterwards, there still is what the kernel does before each write to a file
// with such bits: it asks for the capabilities, in the name of who writes
// (dentry_needs_remove_privs of fs/inode.c in Linux). Nobody else is going to: the program
// cannot be executed while it is open for writing.

const capabilityAttr = "security.capability"

// privilegeBits are the bits of a mode that go when an ordinary user writes to the file.
// The set-group-ID bit of a file that its group may not execute means something else.
func privilegeBits(mode uint32) uint32 {
	bits := mode & unix.S_ISUID
	if mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		bits |= unix.S_ISGID
	}
	return bits
}

// hasPrivileges tells whether a file has such bits.
func hasPrivileges(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && privilegeBits(st.Mode) != 0
}

// watch is called when a file has got such bits.
func (n *node) watch() {
	n.io.Lock()
	defer n.io.Unlock()
	if n.passed > 0 {
		n.watched.Store(true)
	}
}

// beforeWrite takes the bits from a file that the kernel is about to write to.
func (u *FS) beforeWrite(n *node) {
	p, err := u.place(n)
	if err != nil {
		return
	}
	defer p.done(u)
	if u.killPrivileges(n.id, p) == nil {
		n.watched.Store(false)
	}
}

// killPrivileges does what the kernel does for its own filesystems. The kernel is told
// that it does not know the mode any more: it goes by that when the file is executed.
func (u *FS) killPrivileges(id uint64, p place) error {
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return err
	}
	if bits := privilegeBits(st.Mode); bits != 0 {
		if err := p.chmod(st.Mode &^ bits); err != nil {
			return err
		}
		u.server.InodeNotify(id, -1, 0)
	}
	err := p.removexattr(capabilityAttr)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
