//go:build amd64 || arm64

package replay

import "unsafe"

// A machine replays a plan.
type machine struct {
	plan      []byte                                         // what is left of it
	do        func(number, a, b, c, d, e, f uintptr) uintptr // makes a system call
	slots     [Slots]uintptr
	vars      [MaxDefaults]string // of the image
	varCount  int
	committed bool
	entered   bool    // the root is another one
	serving   bool    // this process is the server of a mount that the plan has made
	broken    bool    // the plan is not well formed
	child     uintptr // that is to be waited for
	undo      uintptr // the path of a directory on which something is mounted
}

// buffer is what calls of a plan may fill.
var buffer [BufSize]byte

// run replays the plan to its end, and tells whether all of it went as it
// should.
func (m *machine) run(env environment) bool {
	for len(m.plan) > 0 {
		ok := false
		switch op := m.take(1); op[0] {
		case opCall:
			ok = m.call()
		case opCompare:
			at, n := get16(m.take(2)), get16(m.take(2))
			want := m.take(n)
			ok = at+n <= len(buffer) && view(buffer[at:at+n]) == view(want)
		case opEnv:
			set := m.take(1)[0] == 1
			value, is := env.lookup(view(m.text()))
			ok = is == set && value == view(m.text())
		case opCommit:
			m.committed, ok = true, true
		case opEnter:
			m.entered, ok = true, true
		case opUndo:
			dir := m.text()
			m.undo, ok = address(dir), !m.broken
		case opServe:
			ok = m.serve()
		case opSpawn:
			ok = m.spawn()
		case opDefault:
			if ok = m.varCount < MaxDefaults; ok {
				m.vars[m.varCount] = view(m.text())
				m.varCount++
			}
		}
		if !ok || m.broken {
			return false
		}
	}
	return true
}

// defaults are the variables of the image.
func (m *machine) defaults() environment { return m.vars[:m.varCount] }

// zeros stands for what is missing at the end of a plan.
var zeros [16]byte

// take returns the next n bytes of the plan.
func (m *machine) take(n int) []byte {
	if n > len(m.plan) {
		m.broken, m.plan = true, nil
		if n > len(zeros) {
			n = 0
		}
		return zeros[:n]
	}
	b := m.plan[:n]
	m.plan = m.plan[n:]
	return b
}

// text takes an argument of the kind argBytes.
func (m *machine) text() []byte {
	if m.take(1)[0] != argBytes {
		m.broken = true
		return nil
	}
	b := m.take(get16(m.take(2)))
	m.take(1)
	return b
}

func (m *machine) call() bool {
	number := uintptr(get16(m.take(2)))
	var args [6]uintptr
	count := int(m.take(1)[0])
	if count > len(args) {
		return false
	}
	for i := range count {
		args[i] = m.argument()
	}
	expect, value := m.take(1)[0], int64(get64(m.take(8)))
	slot := m.take(1)[0]
	if m.broken {
		return false
	}
	r := m.do(number, args[0], args[1], args[2], args[3], args[4], args[5])
	if slot < Slots {
		m.slots[slot] = r
	}
	switch expect {
	case expectNothing:
		return true
	case expectValue:
		return int64(r) == value
	}
	return !failed(r)
}

func (m *machine) argument() uintptr {
	switch m.take(1)[0] {
	case argNumber:
		return uintptr(get64(m.take(8)))
	case argBytes:
		b := m.take(get16(m.take(2)) + 1)
		if len(b) > 0 {
			return address(b)
		}
	case argSlot:
		if s := m.take(1)[0]; s < Slots {
			return m.slots[s]
		}
	case argBuffer:
		return address(buffer[:])
	case argDecimal:
		if s := m.take(1)[0]; s < Slots {
			return decimal(m.slots[s])
		}
	}
	m.broken = true
	return 0
}

// digits is what decimal returns the address of.
var digits [24]byte

// decimal is the address of a number as text.
func decimal(n uintptr) uintptr { return address(number(n)) }

// number is a number as text, without the zero that follows.
func number(n uintptr) []byte {
	i := len(digits) - 1 // where the zero is
	for i > 0 {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	return digits[i : len(digits)-1]
}

// failed tells whether the result of a system call is an error: -4095 to -1.
func failed(r uintptr) bool { return r > ^uintptr(4095) }

// address is that of a static buffer, which does not move.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// syscall6 makes a system call and returns what the kernel returns. The Go
// scheduler is not told: the call must not wait for long. Before Go's start it is
// another function, as this one would load g from thread-local storage afterwards.
var syscall6 = goSyscall

func goSyscall(number, a, b, c, d, e, f uintptr) uintptr

// addresses is address for a list of addresses.
func addresses(b []uintptr) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
