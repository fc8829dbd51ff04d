package replay

const arch = "amd64"

// Numbers of system calls: arch/x86/entry/syscalls/syscall_64.tbl.
const (
	sysFcntl       = 72
	sysRead        = 0
	sysWrite       = 1
	sysClose       = 3
	sysRtSigaction = 13
	sysGetcwd      = 79
	sysChdir       = 80
	sysFchdir      = 81
	sysClone       = 56
	sysPipe2       = 293
	sysExecve      = 59
	sysPrctl       = 157
	sysSetsid      = 112
	sysUmount2     = 166
	sysUnshare     = 272
	sysCloseRange  = 436
	sysWait4       = 61
	sysDup3        = 292
	sysGetuid      = 102
	sysGeteuid     = 107
	sysChroot      = 161
	sysExitGroup   = 231
	sysOpenat      = 257
	sysSetns       = 308
	sysExecveat    = 322
	sysStatx       = 332
	sysFaccessat   = 269
	sysPpoll       = 271
	sysPread64     = 17
)
