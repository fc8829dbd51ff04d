// Package ids knows who a process is, and who it is in a user namespace of plash's own: [For] gives
// the ids for one, from the caller's own and his subordinate ids; [HasCapabilities] tells what he may do; and
// [SudoCaller] finds the user to whom a command is given back.
//
// Invariants:
//   - Nobody gets an id that is not his: the kernel checks the caller's own, newuidmap(1) and
//     newgidmap(1) the subordinate ones.
//   - Where subordinate ids are missing or do not work there are maps all the same, with one user.
//   - What gives something up ([DropInheritance], [Identity.Become]) does so for the calling thread
//     alone, which is to be locked and about to execute another program.
//
// It makes no namespace: it says with what one is to be made. What root does where there is one
// user is for package rootemu, and who runs in an image for package bundle.
package ids

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// A Mapping says who the caller is in a user namespace of plash's own.
type Mapping string

const (
	// AsSelf has the caller's user and group, as they are outside, and no others: to
	// run commands.
	AsSelf Mapping = "self"
	// AsRoot has the caller as root, and his subordinate ids as the others: to build.
	AsRoot Mapping = "root"
	// AsCaller makes no user namespace: for who may mount without.
	AsCaller Mapping = "caller"
)

// Maps are the ids of a user namespace.
type Maps struct {
	uids, gids []syscall.SysProcIDMap
	// setgroups says that processes in there may drop groups.
	setgroups bool
	// helper says that newuidmap and newgidmap have to write the maps, as there is more
	// in them than the caller's own ids.
	helper bool
	// Flat says that not all users of an image have ids: files then belong to the
	// caller, whatever the image says.
	Flat bool
	// None says that there is no user namespace of plash's own.
	None bool
}

// Single tells whether there is one user.
func (m *Maps) Single() bool { return len(m.uids) == 1 && m.uids[0].Size == 1 }

// For gives the ids for a namespace of the calling process. Why subordinate ids are not
// used where they could be is the error; the maps are good all the same.
func For(as Mapping) (Maps, error) {
	if as == AsCaller {
		return Maps{None: true}, nil
	}
	if HasCapabilities(unix.CAP_SETUID, unix.CAP_SETGID) {
		m := Maps{setgroups: true}
		uids, err := user.CurrentProcessUIDMap()
		if err == nil {
			m.uids = same(uids)
			var gids []user.IDMap
			gids, err = user.CurrentProcessGIDMap()
			m.gids = same(gids)
		}
		return m, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	own := func(inside, outside int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: 1}}
	}
	if as == AsSelf {
		return Maps{uids: own(uid, uid), gids: own(gid, gid), Flat: true}, nil
	}
	m := Maps{uids: own(0, uid), gids: own(0, gid), Flat: true}
	uids, gids, err := Subordinate(uid)
	if err != nil {
		return m, err
	}
	m.uids = append(m.uids, uids...)
	m.gids = append(m.gids, gids...)
	m.setgroups, m.helper = true, true
	return m, nil
}

// same maps the ids of the present namespace to themselves.
func same(present []user.IDMap) []syscall.SysProcIDMap {
	maps := make([]syscall.SysProcIDMap, len(present))
	for i, p := range present {
		maps[i] = syscall.SysProcIDMap{ContainerID: int(p.ID), HostID: int(p.ID), Size: int(p.Count)}
	}
	return maps
}

// WithoutSubordinate are maps with the caller's own ids alone.
func (m Maps) WithoutSubordinate() Maps {
	m.uids, m.gids, m.helper, m.setgroups = m.uids[:1], m.gids[:1], false, false
	return m
}

// Apply has a process begin in a user namespace with these ids, if there is to be one, and keep all
// capabilities in there when it is executed. [Maps.Write] is to follow when it has been started.
func (m *Maps) Apply(attr *syscall.SysProcAttr) {
	if m.None {
		return
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.AmbientCaps = allCapabilities()
	if !m.helper {
		attr.UidMappings, attr.GidMappings = m.uids, m.gids
		attr.GidMappingsEnableSetgroups = m.setgroups
	}
}

// Write writes the maps of a process that was started with what [Maps.Apply] said, as far as they
// need newuidmap and newgidmap; the process has to wait for that. The error wraps [ErrNoSubordinate].
func (m *Maps) Write(pid int) error {
	if !m.helper {
		return nil
	}
	for _, w := range []struct {
		program string
		maps    []syscall.SysProcIDMap
	}{{newUIDMap, m.uids}, {newGIDMap, m.gids}} {
		args := []string{strconv.Itoa(pid)}
		for _, r := range w.maps {
			args = append(args, strconv.Itoa(r.ContainerID), strconv.Itoa(r.HostID), strconv.Itoa(r.Size))
		}
		if out, err := exec.Command(w.program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s: %w: %s", ErrNoSubordinate, w.program, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
