package ids

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/program"
)

// An Identity is a user to give a command back to.
type Identity struct {
	uid, gid    int
	groups      []uint32
	name        string
	home, shell string // "" if the host does not know the user
}

// SudoCaller is who called sudo; nil if root was not reached through it.
func SudoCaller(env []string) (*Identity, error) {
	uidText, ok := program.LookupEnv(env, "SUDO_UID")
	if !ok || os.Geteuid() != 0 {
		return nil, nil
	}
	gidText, _ := program.LookupEnv(env, "SUDO_GID")
	who := &Identity{}
	who.name, _ = program.LookupEnv(env, "SUDO_USER")
	for _, v := range []struct {
		name, text string
		id         *int
	}{{"SUDO_UID", uidText, &who.uid}, {"SUDO_GID", gidText, &who.gid}} {
		// The last number means "leave as it is" to setresuid(2).
		n, err := strconv.ParseUint(v.text, 10, 32)
		if err != nil || n == 1<<32-1 {
			return nil, fmt.Errorf("give up root: %s=%q is no id", v.name, v.text)
		}
		*v.id = int(n)
	}
	if u, err := user.LookupUid(who.uid); err == nil {
		who.name, who.home, who.shell = u.Name, u.Home, u.Shell
	}
	who.groups = []uint32{uint32(who.gid)}
	groups, err := user.ParseGroupFileFilter("/etc/group", func(g user.Group) bool {
		return who.name != "" && slices.Contains(g.List, who.name)
	})
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("give up root: read groups: %w", err)
	}
	for _, g := range groups {
		if !slices.Contains(who.groups, uint32(g.Gid)) {
			who.groups = append(who.groups, uint32(g.Gid))
		}
	}
	return who, nil
}

// Environ is the environment as the user would have it.
func (who *Identity) Environ(env []string) []string {
	for _, v := range [][2]string{
		{"HOME", who.home}, {"SHELL", who.shell}, {"USER", who.name}, {"LOGNAME", who.name},
	} {
		if v[1] != "" {
			env = program.SetEnv(env, v[0], v[1])
		}
	}
	return env
}

// Become gives root up for good, on the calling thread alone, which must be
// locked and about to exec. (Package syscall would change all threads.)
func (who *Identity) Become() error {
	_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.groups)), uintptr(unsafe.Pointer(&who.groups[0])), 0)
	if errno != 0 {
		return fmt.Errorf("give up root: set groups: %w", errno)
	}
	gid, uid := uintptr(who.gid), uintptr(who.uid)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("give up root: set group %d: %w", who.gid, errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("give up root: set user %d: %w", who.uid, errno)
	}
	return nil
}
