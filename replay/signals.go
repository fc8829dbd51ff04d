//go:build amd64 || arm64

package replay

const (
	sigHup, sigInt, sigQuit   = 1, 2, 3
	sigUsr1, sigUsr2, sigPipe = 10, 12, 13
	sigTerm, sigTstp          = 15, 20
	lastSignal                = 31 // those above are for programs that agree on them
	sigIgnore                 = 1  // SIG_IGN
)

// ignored has a bit for each signal that was ignored when the program began, if that
// was before Go installed its handlers.
var ignored uint32

func noteIgnored() {
	for sig := range uintptr(lastSignal) {
		if isIgnored(sig + 1) {
			ignored |= 1 << sig
		}
	}
}

// Ignored tells whether a signal was ignored when the program began, if that was before Go
// installed its handlers.
func Ignored(sig int) bool { return sig > 0 && sig <= lastSignal && ignored>>(sig-1)&1 != 0 }

// RestoreIgnored is for a process that becomes a command without a plan: what was ignored
// when it began is ignored again, as with a plan. Go itself remembers only SIGINT and SIGHUP.
func RestoreIgnored() {
	for sig := range uintptr(lastSignal) {
		if ignored>>sig&1 != 0 {
			ignore(sig + 1)
		}
	}
}

// ignoreServed ignores the signals that a server does not end of, as package fusefs does it: what comes
// from a terminal, and from who ends all of a session.
func (m *machine) ignoreServed() {
	clear(buffer[:64])
	buffer[0] = sigIgnore
	for _, sig := range [...]uintptr{sigHup, sigInt, sigQuit, sigUsr1, sigUsr2, sigPipe, sigTerm, sigTstp} {
		m.do(sysRtSigaction, sig, address(buffer[:]), 0, 8, 0, 0)
	}
}

// keepQuitIgnored ignores SIGQUIT if SIGINT is ignored: a shell ignores both together,
// for background jobs, and Go leaves only the first as it was.
func keepQuitIgnored() {
	if isIgnored(sigInt) {
		ignore(sigQuit)
	}
}

// The kernel's struct sigaction begins with the handler.

func isIgnored(sig uintptr) bool {
	return syscall6(sysRtSigaction, sig, 0, address(buffer[:]), 8, 0, 0) == 0 && get64(buffer[:]) == sigIgnore
}

func ignore(sig uintptr) {
	clear(buffer[:64])
	buffer[0] = sigIgnore
	syscall6(sysRtSigaction, sig, address(buffer[:]), 0, 8, 0, 0)
}
