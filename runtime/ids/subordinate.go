package ids

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/moby/sys/user"
)

// Files that give users further ids: subuid(5), subgid(5).
const (
	subUIDFile = "/etc/subuid"
	subGIDFile = "/etc/subgid"
)

// maxSubordinate is how many ids a namespace gets beyond the caller's own: with them, it has
// all that a user of 16 bits can be.
const maxSubordinate = 65535

// ErrNoSubordinate is wrapped by the reasons for which a user has no subordinate ids.
var ErrNoSubordinate = errors.New("no subordinate ids")

// Subordinate gives the ids that a user has besides his own, as ids from 1 on. The error
// wraps [ErrNoSubordinate].
func Subordinate(uid int) (uids, gids []syscall.SysProcIDMap, err error) {
	for _, program := range []string{newUIDMap, newGIDMap} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, nil, fmt.Errorf("%w: %s is not installed (package uidmap)", ErrNoSubordinate, program)
		}
	}
	name := ""
	if u, err := user.LookupUid(uid); err == nil {
		name = u.Name
	}
	for _, f := range []struct {
		path string
		into *[]syscall.SysProcIDMap
	}{{subUIDFile, &uids}, {subGIDFile, &gids}} {
		// Both files have users by name or by number.
		ranges, err := user.ParseSubIDFileFilter(f.path, func(s user.SubID) bool {
			return s.Name == strconv.Itoa(uid) || name != "" && s.Name == name
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("%w: read %s: %w", ErrNoSubordinate, f.path, err)
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
			return nil, nil, fmt.Errorf("%w: %s has none for user %d", ErrNoSubordinate, f.path, uid)
		}
	}
	return uids, gids, nil
}

// Programs that write maps with subordinate ids, and check them: newuidmap(1).
const (
	newUIDMap = "newuidmap"
	newGIDMap = "newgidmap"
)

// SubordinateHint says how a user who has no subordinate ids gets some.
func SubordinateHint(uid int) string {
	if _, missing := exec.LookPath(newUIDMap); missing != nil {
		return "sudo apt-get install uidmap"
	}
	name := strconv.Itoa(uid)
	if u, err := user.LookupUid(uid); err == nil {
		name = u.Name
	}
	return fmt.Sprintf("sudo usermod --add-subuids %[1]s --add-subgids %[1]s %[2]s", freeRange(), name)
}

// freeRange is a range of ids that no one has in the files of subordinate ids.
func freeRange() string {
	first := int64(100000)
	for _, file := range []string{subUIDFile, subGIDFile} {
		ranges, err := user.ParseSubIDFile(file)
		if err != nil {
			continue
		}
		for _, r := range ranges {
			first = max(first, r.SubID+r.Count)
		}
	}
	return fmt.Sprintf("%d-%d", first, first+65535)
}
