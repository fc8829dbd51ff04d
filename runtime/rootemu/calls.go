//go:build amd64 || arm64

package rootemu

import "golang.org/x/sys/unix"

// The calls that all our machines have, under the numbers of this one.
var common = []call{
	{nr: unix.SYS_OPENAT, do: openat, only: ofUsers(creating(2))},
	{nr: unix.SYS_FSTAT, do: fstat, only: ofUsers(nil)},
	{nr: unix.SYS_NEWFSTATAT, do: fstatat, only: ofUsers(nil)},
	{nr: unix.SYS_STATX, do: statx, only: ofUsers(nil)},
	{nr: unix.SYS_FCHOWN, do: fchown, blind: true},
	{nr: unix.SYS_FCHOWNAT, do: fchownat, blind: true},
	{nr: unix.SYS_MKNODAT, do: mknodat, only: devices(2, 3), blind: true},
	{nr: unix.SYS_SETXATTR, do: setxattr},
	{nr: unix.SYS_LSETXATTR, do: lsetxattr},
	{nr: unix.SYS_FSETXATTR, do: fsetxattr},
	{nr: sysSetxattrat, do: setxattrat},
	{nr: unix.SYS_REMOVEXATTR, do: removexattr},
	{nr: unix.SYS_LREMOVEXATTR, do: lremovexattr},
	{nr: unix.SYS_FREMOVEXATTR, do: fremovexattr},
	{nr: sysRemovexattrat, do: removexattrat},
	{nr: unix.SYS_SETUID, do: setuid, blind: true},
	{nr: unix.SYS_SETGID, do: setgid, blind: true},
	{nr: unix.SYS_SETREUID, do: setreuid, blind: true},
	{nr: unix.SYS_SETREGID, do: setregid, blind: true},
	{nr: unix.SYS_SETRESUID, do: setresuid, blind: true},
	{nr: unix.SYS_SETRESGID, do: setresgid, blind: true},
	{nr: unix.SYS_SETFSUID, do: setfsuid, blind: true},
	{nr: unix.SYS_SETFSGID, do: setfsgid, blind: true},
	{nr: unix.SYS_SETGROUPS, do: setgroups, blind: true},
	{nr: unix.SYS_PRCTL, do: keepCaps, only: keepingCaps},
	{nr: unix.SYS_GETUID, do: getuid},
	{nr: unix.SYS_GETEUID, do: geteuid},
	{nr: unix.SYS_GETGID, do: getgid},
	{nr: unix.SYS_GETEGID, do: getegid},
	{nr: unix.SYS_GETRESUID, do: getresuid},
	{nr: unix.SYS_GETRESGID, do: getresgid},
	{nr: unix.SYS_GETGROUPS, do: getgroups},
	{nr: unix.SYS_SETRLIMIT, do: setrlimit, only: realTime(0)},
	{nr: unix.SYS_PRLIMIT64, do: prlimit, only: realTime(1)},
	{nr: unix.SYS_GETSOCKOPT, do: getpeercred, only: peerIDs},
	{nr: unix.SYS_MKDIRAT, do: mkdirat, only: ofUsers(nil)},
	{nr: unix.SYS_SYMLINKAT, do: symlinkat, only: ofUsers(nil)},
}

// Numbers that came with Linux 6.13, the same on all machines.
const (
	sysSetxattrat    = 463
	sysRemovexattrat = 466
)
