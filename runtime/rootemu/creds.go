package rootemu

import "golang.org/x/sys/unix"

// Indexes of the ids that a process has of each kind.
const (
	real = iota
	effective
	saved
	filesystem
)

// creds are the ids of a process (credentials(7)).
type creds struct {
	uid, gid [4]uint32
	// groups are the supplementary groups as comparable text; known says whether any
	// were set, as those that the process really has are the host's business.
	groups string
	known  bool
	// keepCaps: a change of ids takes no capabilities away, so later changes are allowed.
	keepCaps bool
}

// capable tells whether the process may become anyone. (A process that has come down from root
// by its effective id alone has that capability no more, until it goes back up.)
func (c *creds) capable() bool { return c.uid[effective] == 0 || c.keepCaps }

// user tells whether the process is anyone but root, by any of its ids.
func (c *creds) user() bool { return c.uid != [4]uint32{} || c.gid != [4]uint32{} }

// has tells whether an id is one of some kinds of the process' own.
func has(ids *[4]uint32, id uint32, kinds ...int) bool {
	for _, k := range kinds {
		if ids[k] == id {
			return true
		}
	}
	return false
}

// The changes follow kernel/sys.c: what each needs, and what it changes.

// setAll is setuid(2) and setgid(2).
func (c *creds) setAll(ids *[4]uint32, id uint32) error {
	switch {
	case id == noID:
		return unix.EINVAL
	case c.capable():
		*ids = [4]uint32{id, id, id, id}
	case has(ids, id, real, saved):
		ids[effective], ids[filesystem] = id, id
	default:
		return unix.EPERM
	}
	return nil
}

// setTwo is setreuid(2) and setregid(2).
func (c *creds) setTwo(ids *[4]uint32, r, e uint32) error {
	was := *ids
	mayAll := c.capable()
	if r != noID {
		if !mayAll && !has(&was, r, real, effective) {
			return unix.EPERM
		}
		ids[real] = r
	}
	if e != noID {
		if !mayAll && !has(&was, e, real, effective, saved) {
			*ids = was
			return unix.EPERM
		}
		ids[effective] = e
	}
	if r != noID || e != noID && e != was[real] {
		ids[saved] = ids[effective]
	}
	ids[filesystem] = ids[effective]
	return nil
}

// setThree is setresuid(2) and setresgid(2).
func (c *creds) setThree(ids *[4]uint32, want [3]uint32) error {
	for _, id := range want {
		if id != noID && !c.capable() && !has(ids, id, real, effective, saved) {
			return unix.EPERM
		}
	}
	for kind, id := range want {
		if id != noID {
			ids[kind] = id
		}
	}
	ids[filesystem] = ids[effective]
	return nil
}

// setFilesystem is setfsuid(2) and setfsgid(2), which say what was.
func (c *creds) setFilesystem(ids *[4]uint32, id uint32) (was uint32) {
	was = ids[filesystem]
	if id != noID && (c.capable() || has(ids, id, real, effective, saved, filesystem)) {
		ids[filesystem] = id
	}
	return was
}
