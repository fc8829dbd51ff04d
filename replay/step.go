//go:build amd64 || arm64

package replay

// firstStepFD is the first descriptor that an init has besides its standard streams.
const firstStepFD = 3

const (
	fSetFD    = 2 // F_SETFD
	fdCloexec = 1 // FD_CLOEXEC
)

// stepInit is for a program that was started as StepInit. With a plan it is the whole of the
// process; else it does nothing.
func stepInit(args []string) {
	if len(args) != 1 || args[0] != StepInit {
		return
	}
	n, ok := readAll(StepPlanFD, planBuf[:])
	if !ok {
		return
	}
	plan := decode(planBuf[:n])
	if plan == nil {
		return
	}
	m := &replayer
	m.plan, m.do = plan, syscall6
	for i := range m.slots {
		m.slots[i] = none
	}
	m.run(nil)
	tell(StepAgain, nil, "")
}

// spawn starts the command, and ends with it. It returns if the command cannot be started.
func (m *machine) spawn() bool {
	path := view(m.text())
	argc, envc := int(m.take(1)[0]), get16(m.take(2))
	if listCount+argc+envc+2 > len(listPlace) {
		return false
	}
	name, file := "", uintptr(0)
	x := lists{addresses(listPlace[listCount:]), addresses(listPlace[listCount+argc+1:])}
	for i := range argc + envc {
		if i == argc {
			listCount++ // the zero behind the arguments
		}
		b := m.text()
		if i == 0 {
			name, file = view(b), address(b)
		}
		listPlace[listCount] = address(b)
		listCount++
	}
	for fd := uintptr(firstStepFD); fd <= StepPlanFD; fd++ {
		m.do(sysFcntl, fd, fSetFD, fdCloexec, 0, 0, 0)
	}
	// Its writing end closes when the command starts.
	if m.broken || name == "" || failed(m.do(sysPipe2, address(buffer[:]), oCloexec, 0, 0, 0, 0)) {
		return false
	}
	in, out := uintptr(get32(buffer[:])), uintptr(get32(buffer[4:]))
	child := m.do(sysClone, sigChld, 0, 0, 0, 0, 0)
	if child == 0 {
		if hasSlash(name) {
			x.execve(file)
		} else {
			x.search(name, path)
		}
		m.do(sysWrite, out, text("x"), 1, 0, 0, 0)
		exit(1)
	}
	m.do(sysClose, out, 0, 0, 0, 0, 0)
	if failed(child) || m.do(sysRead, in, address(buffer[:]), 1, 0, 0, 0) != 0 {
		return false
	}
	m.reap(child)
	return false
}

// reap waits for the command, and meanwhile for the processes whose parents have left them to
// the init, and tells how it ended.
func (m *machine) reap(command uintptr) {
	for {
		pid := m.do(sysWait4, ^uintptr(0), address(buffer[:]), 0, 0, 0, 0)
		if failed(pid) {
			return
		}
		if pid != command {
			continue
		}
		// As wait(2) has it: the signal, or 0 and the exit code.
		if signal := uintptr(buffer[0] & 0x7f); signal != 0 {
			tell(`{"Signal":`, number(signal), "}")
		}
		tell(`{"Code":`, number(uintptr(buffer[1])), "}")
	}
}

// tell tells who has started the init, and ends it: the kernel kills what is left in its pid
// namespace.
func tell(before string, n []byte, after string) {
	var p pathText
	p.add(before)
	p.add(view(n))
	p.add(after)
	syscall6(sysWrite, StepStatusFD, address(pathBuf[:]), uintptr(p.n), 0, 0, 0)
	exit(0)
}
