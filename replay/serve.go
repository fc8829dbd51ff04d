//go:build amd64 || arm64

package replay

import "unsafe"

// Descriptors of a server that a plan starts.
const (
	deviceFD  = 3 + iota // the device
	lockFD               // the lock that it keeps, if there is one
	answersFD            // its answers, if it has some

	fDupFD = 0 // F_DUPFD
)

// served is this process if it is such a server, and title is what it is called. What they
// point to is the plan's, which stays where it is.
var (
	served Server
	title  []byte
)

// Started gives the server that this process is, if a plan has started it.
func Started() (s *Server, ok bool) { return &served, served.Config != nil }

// serve starts a server: a grandchild of this process, whose child ends at once. The device
// is the server's alone afterwards, so that its end is the end of the mount.
func (m *machine) serve() bool {
	slot := m.take(1)[0]
	lock := m.take(1)[0]
	title, config, answers := m.text(), m.text(), m.text()
	served.Key = m.take(KeySize)
	if m.broken || slot >= Slots {
		return false
	}
	child := m.do(sysClone, sigChld, 0, 0, 0, 0, 0)
	switch {
	case failed(child):
		return false
	case child != 0:
		m.do(sysClose, m.slots[slot], 0, 0, 0, 0, 0)
		m.slots[slot] = none
		m.child = child
		return true
	}
	if m.do(sysClone, sigChld, 0, 0, 0, 0, 0) != 0 {
		m.do(sysExitGroup, 0, 0, 0, 0, 0, 0)
	}
	held := none
	if lock < Slots {
		held = m.slots[lock]
	}
	m.serving = true
	m.become(m.slots[slot], held, title, config, answers)
	return false
}

// wait lets the child go that serve has made, which has ended for long.
func (m *machine) wait() {
	if m.child != 0 {
		m.do(sysWait4, m.child, 0, 0, 0, 0, 0)
	}
}

// become makes a server of this process, which keeps nothing of the caller but what may go to
// standard error, and the lock.
func (m *machine) become(device, lock uintptr, name, config, answers []byte) {
	title, served.Config = name, config
	m.ignoreServed()
	m.do(sysSetsid, 0, 0, 0, 0, 0, 0)
	served.OwnMounts = !failed(m.do(sysUnshare, cloneNewNS, 0, 0, 0, 0, 0))
	null := m.do(sysOpenat, atCwd, text("/dev/null\x00"), oRdwr, 0, 0, 0)
	m.do(sysDup3, null, 0, 0, 0, 0, 0)
	m.do(sysDup3, null, 1, 0, 0, 0, 0)
	if m.isPipe(2) {
		m.do(sysDup3, null, 2, 0, 0, 0, 0)
	}
	m.keep(device, lock, m.openAnswers(answers))
	m.do(sysChdir, text("/\x00"), 0, 0, 0, 0, 0)
	m.do(sysPrctl, prSetName, address(name), 0, 0, 0, 0)
}

// keep puts the descriptors of a server in their places, and closes all others.
func (m *machine) keep(device, lock, answers uintptr) {
	// First out of the way.
	device, lock, answers = m.dup(device), m.dup(lock), m.dup(answers)
	m.do(sysDup3, device, deviceFD, 0, 0, 0, 0)
	served.Device, served.Lock, served.Answers = deviceFD, -1, -1
	others := uintptr(deviceFD + 1)
	if !failed(lock) && !failed(m.do(sysDup3, lock, lockFD, 0, 0, 0, 0)) {
		served.Lock, others = lockFD, lockFD+1
		// Without a lock, files may be taken away that answers lie in.
		if !failed(answers) && !failed(m.do(sysDup3, answers, answersFD, 0, 0, 0, 0)) {
			served.Answers, others = answersFD, answersFD+1
		}
	}
	detached = !failed(m.do(sysCloseRange, others, ^uintptr(0)>>32, 0, 0, 0, 0))
}

// dup is a descriptor that none of a server's own is.
func (m *machine) dup(fd uintptr) uintptr {
	if failed(fd) {
		return none
	}
	return m.do(sysFcntl, fd, fDupFD, answersFD+1, 0, 0, 0)
}

// openAnswers opens the file of answers, if there is one of the user's own.
func (m *machine) openAnswers(path []byte) uintptr {
	if len(path) == 0 {
		return none
	}
	fd := m.do(sysOpenat, atCwd, address(path), oRdwr|oCloexec, 0, 0, 0)
	if failed(fd) || !trusted(fd) {
		return none
	}
	return fd
}

// isPipe tells of a pipe or a socket, whose reader would wait for the server's end.
func (m *machine) isPipe(fd uintptr) bool {
	r := m.do(sysStatx, fd, text("\x00"), atEmptyPath, statxType, address(buffer[:]), 0)
	format := get16(buffer[28:]) & sIfmt // stx_mode
	return failed(r) || format == sIfifo || format == sIfsock
}

// disguise puts the server's title in the place of arguments and variables, which are the
// caller's: they are one piece of memory that proc_pid_cmdline(5) and proc_pid_environ(5) show.
func (v *vector) disguise(args, env int) {
	last := env - 1
	if last == args {
		last-- // no variables
	}
	if last < 1 {
		return
	}
	first := uintptr(unsafe.Pointer(v[1]))
	end := uintptr(unsafe.Pointer(v[last])) + words[last][1]
	all := unsafe.Slice(v[1], end-first+1)
	clear(all)
	copy(all[:len(all)-1], title)
	for i := 2; i <= last; i++ {
		if v[i] != nil {
			v[i] = &all[len(all)-1]
		}
	}
}
