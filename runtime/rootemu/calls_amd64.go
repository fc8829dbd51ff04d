package rootemu

import "golang.org/x/sys/unix"

var machines = []machine{
	{arch: unix.AUDIT_ARCH_X86_64, calls: append([]call{
		{nr: unix.SYS_CHOWN, do: chown, blind: true},
		{nr: unix.SYS_LCHOWN, do: lchown, blind: true},
		{nr: unix.SYS_MKNOD, do: mknod, only: devices(1, 2), blind: true},
		{nr: unix.SYS_OPEN, do: open, only: ofUsers(creating(1))},
		{nr: unix.SYS_CREAT, do: creat, only: ofUsers(nil)},
		{nr: unix.SYS_MKDIR, do: mkdir, only: ofUsers(nil)},
		{nr: unix.SYS_SYMLINK, do: symlink, only: ofUsers(nil)},
		{nr: unix.SYS_STAT, do: stat, only: ofUsers(nil)},
		{nr: unix.SYS_LSTAT, do: lstat, only: ofUsers(nil)},
	}, common...)},
	{arch: unix.AUDIT_ARCH_I386, calls: calls386},
}

// Where shared libraries are if the stack may grow without limit, as the upper half of an
// address: below a sixth of the address space (arch/x86/mm/mmap.c, mmap_base), less what is random.
const (
	librariesFrom = 0x1000
	librariesTo   = 0x1556
)

// calls386 are the calls of 32-bit programs (arch/x86/entry/syscalls/syscall_32.tbl).
var calls386 = []call{
	{nr: 14, do: mknod, only: devices(1, 2), blind: true},
	{nr: 16, do: lchown, blind: true, narrow: true},
	{nr: 23, do: setuid, blind: true, narrow: true},
	{nr: 24, do: getuid, narrow: true},
	{nr: 46, do: setgid, blind: true, narrow: true},
	{nr: 47, do: getgid, narrow: true},
	{nr: 49, do: geteuid, narrow: true},
	{nr: 50, do: getegid, narrow: true},
	{nr: 70, do: setreuid, blind: true, narrow: true},
	{nr: 71, do: setregid, blind: true, narrow: true},
	{nr: 75, do: setrlimit, only: realTime(0)},
	{nr: 80, do: getgroups, narrow: true},
	{nr: 81, do: setgroups, blind: true, narrow: true},
	{nr: 95, do: fchown, blind: true, narrow: true},
	{nr: 138, do: setfsuid, blind: true, narrow: true},
	{nr: 139, do: setfsgid, blind: true, narrow: true},
	{nr: 164, do: setresuid, blind: true, narrow: true},
	{nr: 165, do: getresuid, narrow: true},
	{nr: 170, do: setresgid, blind: true, narrow: true},
	{nr: 171, do: getresgid, narrow: true},
	{nr: 172, do: keepCaps, only: keepingCaps},
	{nr: 182, do: chown, blind: true, narrow: true},
	{nr: 198, do: lchown, blind: true},
	{nr: 199, do: getuid},
	{nr: 200, do: getgid},
	{nr: 201, do: geteuid},
	{nr: 202, do: getegid},
	{nr: 203, do: setreuid, blind: true},
	{nr: 204, do: setregid, blind: true},
	{nr: 205, do: getgroups},
	{nr: 206, do: setgroups, blind: true},
	{nr: 207, do: fchown, blind: true},
	{nr: 208, do: setresuid, blind: true},
	{nr: 209, do: getresuid},
	{nr: 210, do: setresgid, blind: true},
	{nr: 211, do: getresgid},
	{nr: 212, do: chown, blind: true},
	{nr: 213, do: setuid, blind: true},
	{nr: 214, do: setgid, blind: true},
	{nr: 215, do: setfsuid, blind: true},
	{nr: 216, do: setfsgid, blind: true},
	{nr: 226, do: setxattr},
	{nr: 227, do: lsetxattr},
	{nr: 228, do: fsetxattr},
	{nr: 235, do: removexattr},
	{nr: 236, do: lremovexattr},
	{nr: 237, do: fremovexattr},
	{nr: 297, do: mknodat, only: devices(2, 3), blind: true},
	{nr: 298, do: fchownat, blind: true},
	{nr: 340, do: prlimit, only: realTime(1)},
	{nr: sysSetxattrat, do: setxattrat},
	{nr: sysRemovexattrat, do: removexattrat},
}
