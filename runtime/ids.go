package runtime

import (
	"bytes"
	"errors"
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
	sub, err := subordinate(uid)
	if err != nil {
		return m, err
	}
	m.uids = append(m.uids, sub.uids...)
	m.gids = append(m.gids, sub.gids...)
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

// Files that give users further ids: subuid(5), subgid(5).
const (
	subUIDFile = "/etc/subuid"
	subGIDFile = "/etc/subgid"
)

// maxSubordinate is how many ids a namespace gets beyond the caller's own: with them, it has
// all that a user of 16 bits can be.
const maxSubordinate = 65535

// errNoSubIDs is wrapped by the reasons for which a user has no subordinate ids.
var errNoSubIDs = errors.New("no subordinate ids")

// subordinate gives the ids that a user has besides his own, as ids from 1 on.
func subordinate(uid int) (idMaps, error) {
	for _, program := range []string{newUIDMap, newGIDMap} {
		if _, err := exec.LookPath(program); err != nil {
			return idMaps{}, fmt.Errorf("%w: %s is not installed (package uidmap)", errNoSubIDs, program)
		}
	}
	name := ""
	if u, err := user.LookupUid(uid); err == nil {
		name = u.Name
	}
	var m idMaps
	for _, f := range []struct {
		path string
		into *[]syscall.SysProcIDMap
	}{{subUIDFile, &m.uids}, {subGIDFile, &m.gids}} {
		// Both files have users by name or by number.
		ranges, err := user.ParseSubIDFileFilter(f.path, func(s user.SubID) bool {
			return s.Name == strconv.Itoa(uid) || name != "" && s.Name == name
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return idMaps{}, fmt.Errorf("%w: read %s: %w", errNoSubIDs, f.path, err)
		}
		next := 1
		for _, r := range ranges {
			size := min(int(r.Count), maxSubordinate+1-next)
			if size > 0 {
				*f.into = append(*f.into, syscall.SysProcIDMap{ContainerID: next, HostID: int(r.SubID), Size: size})
				next += size
			}
		}
		if next == 1 {
			return idMaps{}, fmt.Errorf("%w: %s has none for user %d", errNoSubIDs, f.path, uid)
		}
	}
	return m, nil
}

// Programs that write maps with subordinate ids, and check them: newuidmap(1).
const (
	newUIDMap = "newuidmap"
	newGIDMap = "newgidmap"
)

// write has the maps of a process' namespace written.
func (m *idMaps) write(pid int) error {
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

// hasCapabilities tells whether this process has all these capabilities, effective, in its
// user namespace.
func hasCapabilities(caps ...uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	for _, c := range caps {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return false
		}
	}
	return true
}

// allCapabilities are those of the running kernel.
func allCapabilities() []uintptr {
	last := unix.CAP_LAST_CAP
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil {
			last = n
		}
	}
	caps := make([]uintptr, last+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps
}

// dropInheritance lets the capabilities of this thread end with its next execve(2), unless
// it is root: what a stage may do is not for the commands that it runs.
func dropInheritance() error {
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: before Linux 4.3
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return nil
}
