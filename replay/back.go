//go:build amd64 || arm64

package replay

// A wayBack leads from the middle of a plan to where the program was called. For a user
// there is none, as he may not enter the namespaces of others; but in his own all is as it was
// where he was called, until it has another root.
type wayBack struct {
	namespace, root, cwd, exe uintptr
	args                      []string
	env                       environment
}

func (w *wayBack) open() bool {
	if failed(syscall6(sysGetcwd, address(cwdBuf[:]), uintptr(len(cwdBuf)), 0, 0, 0, 0)) {
		cwdBuf[0] = 0
	}
	w.exe = open(text("/proc/self/exe\x00"), oCloexec|oPath)
	if user != 0 {
		w.namespace, w.root, w.cwd = none, none, none
		return !failed(w.exe)
	}
	w.namespace = open(text("/proc/self/ns/mnt\x00"), oCloexec)
	w.root = open(text("/\x00"), oCloexec|oPath)
	w.cwd = open(text(".\x00"), oCloexec|oPath)
	return !failed(w.namespace) && !failed(w.root) && !failed(w.cwd) && !failed(w.exe)
}

func (w *wayBack) close() {
	closeFD(w.namespace)
	closeFD(w.root)
	closeFD(w.cwd)
	closeFD(w.exe)
}

// restart starts the program again, where it was called, with a variable that tells why. It
// does not return.
func (w *wayBack) restart(m *machine) {
	if w.back(m) {
		listBytes, listCount = 0, 0
		w.exec(list(w.args, "", ""), list(w.env, "", Var+"="+Stale))
	}
	// Nothing that could say more leads on from here. The text is as other errors of
	// plash look, see package main.
	const lost = "plash run: cannot go back to where it was called\n"
	syscall6(sysWrite, 2, text(lost), uintptr(len(lost)), 0, 0, 0)
	exit(125)
}

func (w *wayBack) back(m *machine) bool {
	if user == 0 {
		return !failed(syscall6(sysSetns, w.namespace, 0, 0, 0, 0, 0)) &&
			!failed(syscall6(sysFchdir, w.root, 0, 0, 0, 0, 0)) &&
			!failed(syscall6(sysChroot, text(".\x00"), 0, 0, 0, 0, 0)) &&
			!failed(syscall6(sysFchdir, w.cwd, 0, 0, 0, 0, 0))
	}
	if m.entered {
		return false
	}
	for m.undo != 0 && !failed(syscall6(sysUmount2, m.undo, mntDetach, 0, 0, 0, 0)) {
	}
	if cwdBuf[0] == '/' {
		syscall6(sysChdir, address(cwdBuf[:]), 0, 0, 0, 0, 0)
	}
	return true
}

// exec starts the program again. It returns if that did not work.
func (w *wayBack) exec(argv, env uintptr) {
	syscall6(sysExecveat, w.exe, text("\x00"), argv, env, atEmptyPath, 0)
}
