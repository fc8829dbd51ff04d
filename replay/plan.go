package replay

// A Plan is a list of system calls being recorded.
type Plan struct {
	ops             []byte
	slots, defaults int
	broke           bool
	lock            byte   // of a server, see Answers
	answers         string // the file's path
	keys            []int  // places of the key
}

// An Arg is an argument of a system call.
type Arg []byte

// Number is an argument that is no address.
func Number(n int) Arg { return append64([]byte{argNumber}, uint64(n)) }

// Bytes is the address of bytes that a zero follows.
func Bytes(b []byte) Arg {
	a := append([]byte{argBytes, byte(len(b)), byte(len(b) >> 8)}, b...)
	if len(b) > 0xffff {
		return nil // makes the plan too large
	}
	return append(a, 0)
}

// String is the address of a string that ends with a zero.
func String(s string) Arg { return Bytes([]byte(s)) }

// Buffer is the address of the buffer, of [BufSize] bytes.
func Buffer() Arg { return Arg{argBuffer} }

// A Slot is the place where a call's result is kept, which is a descriptor: it is
// closed when the plan is given up.
type Slot byte

// Arg is the kept result as an argument.
func (s Slot) Arg() Arg { return Arg{argSlot, byte(s)} }

// Decimal is the address of the kept result as text.
func (s Slot) Decimal() Arg { return Arg{argDecimal, byte(s)} }

// Call adds a system call that must not fail.
func (p *Plan) Call(number uintptr, args ...Arg) {
	p.call(number, args, expectSuccess, 0, noSlot)
}

// CallKeep is Call, and keeps the result, a descriptor. It must be one that
// execve(2) closes, and is not to be closed by the plan.
func (p *Plan) CallKeep(number uintptr, args ...Arg) Slot {
	s := byte(p.slots)
	if p.slots++; p.slots > Slots {
		p.broke = true
	}
	p.call(number, args, expectSuccess, 0, s)
	return Slot(s)
}

// Try adds a system call that may fail.
func (p *Plan) Try(number uintptr, args ...Arg) {
	p.call(number, args, expectNothing, 0, noSlot)
}

// CallExpect adds a system call that must return value; an error is -errno.
func (p *Plan) CallExpect(value int, number uintptr, args ...Arg) {
	p.call(number, args, expectValue, value, noSlot)
}

func (p *Plan) call(number uintptr, args []Arg, expect byte, value int, slot byte) {
	p.ops = append(p.ops, opCall, byte(number), byte(number>>8), byte(len(args)))
	for _, a := range args {
		p.broke = p.broke || len(a) == 0
		p.ops = append(p.ops, a...)
	}
	p.ops = append64(append(p.ops, expect), uint64(value))
	p.ops = append(p.ops, slot)
}

// Compare demands that the buffer has these bytes at an offset.
func (p *Plan) Compare(offset int, want []byte) {
	p.ops = append(p.ops, opCompare, byte(offset), byte(offset>>8), byte(len(want)), byte(len(want)>>8))
	p.ops = append(p.ops, want...)
	p.broke = p.broke || offset+len(want) > BufSize
}

// Env demands that an environment variable has a value, or that it is not set.
func (p *Plan) Env(name, value string, set bool) {
	p.ops = append(p.ops, opEnv, 0)
	if set {
		p.ops[len(p.ops)-1] = 1
	}
	p.ops = append(append(p.ops, String(name)...), String(value)...)
}

// Default gives the command a variable, NAME=VALUE, if the caller has none of that name.
func (p *Plan) Default(v string) {
	a := String(v)
	p.defaults++
	p.broke = p.broke || len(a) == 0 || p.defaults > MaxDefaults
	p.ops = append(append(p.ops, opDefault), a...)
}

// Commit ends the part of the plan that only looks.
func (p *Plan) Commit() { p.ops = append(p.ops, opCommit) }

// Enter says that the calls before it have made the container's root that of the process.
func (p *Plan) Enter() { p.ops = append(p.ops, opEnter) }

// Undo has what is mounted on a directory taken away if the plan fails later, where it leaves
// the mount namespace that it has made to what comes after.
func (p *Plan) Undo(dir string) { p.ops = append(append(p.ops, opUndo), String(dir)...) }

// Answers is for the servers that the plan starts after it: they keep the descriptor of a lock
// until they have opened what they serve, and have a file of answers.
func (p *Plan) Answers(path string, lock Slot) { p.answers, p.lock = path, byte(lock) }

// Serves tells whether the plan starts a server that uses answers.
func (p *Plan) Serves() bool { return len(p.keys) > 0 }

// SetKey tells the servers which answers are theirs: those with the same key.
func (p *Plan) SetKey(key [KeySize]byte) {
	for _, at := range p.keys {
		copy(p.ops[at:], key[:])
	}
}

// Serve starts the server of a FUSE device, which the plan loses: a process that is told by
// [Started]. Title is what ps(1) shows of it.
func (p *Plan) Serve(device Slot, title string, config []byte) {
	lock := p.lock
	if p.answers == "" {
		lock = noSlot
	}
	p.ops = append(p.ops, opServe, byte(device), lock)
	for _, a := range []Arg{String(title), Bytes(config), String(p.answers)} {
		p.broke = p.broke || len(a) == 0
		p.ops = append(p.ops, a...)
	}
	if p.answers != "" {
		p.keys = append(p.keys, len(p.ops))
	}
	p.ops = append(p.ops, make([]byte, KeySize)...)
}

// Spawn starts a command as a child, looked for in path if its name has no slash, and reaps
// until it has ended. Then StepStatusFD is told, as JSON, {"Code":N} or {"Signal":N}, and the
// process ends.
func (p *Plan) Spawn(path string, argv, env []string) {
	p.ops = append(append(p.ops, opSpawn), String(path)...)
	p.ops = append(p.ops, byte(len(argv)), byte(len(env)), byte(len(env)>>8))
	p.broke = p.broke || len(argv) == 0 || len(argv) > 0xff || len(env) > 0xffff
	for _, s := range append(argv[:len(argv):len(argv)], env...) {
		a := String(s)
		p.broke = p.broke || len(a) == 0
		p.ops = append(p.ops, a...)
	}
}

// Encode gives the file's content, nil if there is too much in the plan.
func (p *Plan) Encode() []byte {
	size := headerSize + len(p.ops)
	if p.broke || size > MaxSize {
		return nil
	}
	b := append32([]byte(magic), uint32(size))
	return append(append32(b, sum(p.ops)), p.ops...)
}

func append32(b []byte, n uint32) []byte {
	return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

func append64(b []byte, n uint64) []byte {
	return append32(append32(b, uint32(n)), uint32(n>>32))
}
