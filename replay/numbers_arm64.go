package replay

const arch = "arm64"

// Numbers of system calls: include/uapi/asm-generic/unistd.h.
const (
	sysFcntl       = 25
	sysGetcwd      = 17
	sysChdir       = 49
	sysFchdir      = 50
	sysChroot      = 51
	sysOpenat      = 56
	sysClose       = 57
	sysRead        = 63
	sysWrite       = 64
	sysExitGroup   = 94
	sysRtSigaction = 134
	sysGetuid      = 174
	sysGeteuid     = 175
	sysClone       = 220
	sysPipe2       = 59
	sysExecve      = 221
	sysPrctl       = 167
	sysSetsid      = 157
	sysUmount2     = 39
	sysUnshare     = 97
	sysCloseRange  = 436
	sysWait4       = 260
	sysDup3        = 24
	sysSetns       = 268
	sysExecveat    = 281
	sysStatx       = 291
	sysFaccessat   = 48
	sysPpoll       = 73
	sysPread64     = 67
)
