package runtime

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

// A mapping says who the caller is in a user namespace of plash's own.
type mapping string

const (
	// asSelf has the caller's user and group, as they are outside, and no others: to
	// run commands.
	asSelf mapping = "self"
	// asRoot has the caller as root, and his subordinate ids as the others: to build.
	asRoot mapping = "root"
	// asCaller makes no user namespace: for who may mount without.
	asCaller mapping = "caller"
)

// idMaps are the ids of a user namespace.
type idMaps struct {
	uids, gids []syscall.SysProcIDMap
	// setgroups says that processes in there may drop groups.
	setgroups bool
	// helper says that newuidmap and newgidmap have to write the maps, as there is more
	// in them than the caller's own ids.
	helper bool
	// flat says that not all users of an image have ids: files then belong to the
	// caller, whatever the image says.
	flat bool
	// none says that there is no user namespace of plash's own.
	none bool
}

// single tells whether there is one user.
func (m *idMaps) single() bool { return len(m.uids) == 1 && m.uids[0].Size == 1 }

// mapsFor gives the ids for a namespace of the calling process. Why subordinate ids are not
// used where they could be is the error; the maps are good all the same.
func mapsFor(as mapping) (idMaps, error) {
	if as == asCaller {
		return idMaps{none: true}, nil
	}
	if hasCapabilities(unix.CAP_SETUID, unix.CAP_SETGID) {
		m := idMaps{setgroups: true}
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
	if as == asSelf {
		return idMaps{uids: own(uid, uid), gids: own(gid, gid), flat: true}, nil
	}
	m := idMaps{uids: own(0, uid), gids: own(0, gid), flat: true}
	uids, gids, err := subordinate(uid)
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

// withoutSubordinate are maps with the caller's own ids alone.
func (m idMaps) withoutSubordinate() idMaps {
	m.uids, m.gids, m.helper, m.setgroups = m.uids[:1], m.gids[:1], false, false
	return m
}

// apply has a process begin in a user namespace with these ids, and with all capabilities in there
// also after execve(2). When it is started, its maps are to be written: see [idMaps.write].
func (m *idMaps) apply(attr *syscall.SysProcAttr) {
	if m.none {
		return
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.AmbientCaps = allCapabilities()
	if !m.helper {
		attr.UidMappings, attr.GidMappings = m.uids, m.gids
		attr.GidMappingsEnableSetgroups = m.setgroups
	}
}

// write has the maps of a namespace written that apply could not have written by the process'
// parent. The process is in there already, and has to wait for it. The error wraps errNoSubIDs.
func (m *idMaps) write(pid int) error {
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
			return fmt.Errorf("%w: %s: %w: %s", errNoSubIDs, w.program, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
