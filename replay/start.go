//go:build amd64 || arm64

package replay

// Flags of system calls: include/uapi/linux/fcntl.h, stat.h.
const (
	atCwd       = ^uintptr(99) // AT_FDCWD, -100
	atEmptyPath = 0x1000
	fGetFD      = 1           // F_GETFD
	badFD       = ^uintptr(8) // -EBADF
	oRdwr       = 2
	oCloexec    = 0x80000
	oPath       = 0x200000
	xOK         = 1

	cloneNewNS = 0x20000 // CLONE_NEWNS
	sigChld    = 17

	statxMode = 0x2 // STATX_MODE
	statxUID  = 0x8 // STATX_UID
)

var (
	planBuf [MaxSize]byte
	pathBuf [3 * 4096]byte
	cwdBuf  [4096]byte
	// Not on the stack, which begins with 2 KiB and should not have to grow.
	replayer machine
	back     wayBack
)

func init() {
	if !entered {
		start(processArgs(), processEnv())
	}
}

// start replays the plan for the program's command line, if there is one. It
// returns where nothing has been done.
func start(args []string, env environment) {
	c, ok := parse(args)
	if !ok || syscall6(sysGetuid, 0, 0, 0, 0, 0, 0) != 0 || syscall6(sysGeteuid, 0, 0, 0, 0, 0, 0) != 0 {
		return
	}
	if _, set := env.lookup(Var); set || !fit(args, env) {
		return
	}
	plan := findPlan(c.id, env)
	if plan == nil {
		return
	}
	w, m := &back, &replayer
	w.args, w.env = args, env
	if entered {
		openStreams()
	}
	if !w.open() {
		w.close()
		return
	}
	m.plan, m.do = plan, syscall6
	for i := range m.slots {
		m.slots[i] = ^uintptr(0)
	}
	if m.run(env) {
		c.exec(env)
		w.restart(Var + "=" + NotExec)
	} else if m.committed {
		w.restart(Var + "=" + Stale)
	}
	for i := range m.slots {
		closeFD(m.slots[i]) // the locks go with them
	}
	w.close()
}

// openStreams opens standard streams that are closed, on /dev/null, as Go does at its
// start: a descriptor of something else is not to be taken for one.
func openStreams() {
	for fd := range uintptr(3) {
		if syscall6(sysFcntl, fd, fGetFD, 0, 0, 0, 0) == badFD {
			open(text("/dev/null\x00"), oRdwr)
		}
	}
}

// findPlan reads the plan of a container, nil if there is none.
func findPlan(id string, env environment) []byte {
	store, _ := env.lookup("PLASH_DATA")
	if store == "" {
		store = "/var/lib/plash"
	}
	if store[0] != '/' || len(store) > 3000 {
		return nil
	}
	var p pathText
	p.add(store)
	p.add("/ids/")
	p.add(id)
	n, ok := readFile(p.address(), planBuf[:])
	// The place below containers/, and a newline: package container, place.
	if !ok || n < 2 || n > 1000 || planBuf[n-1] != '\n' {
		return nil
	}
	p.n = 0
	p.add(store)
	p.add("/containers/")
	p.add(view(planBuf[:n-1]))
	p.add("/" + FileName)
	fd := open(p.address(), oCloexec)
	if failed(fd) {
		return nil
	}
	n, ok = 0, trusted(fd)
	if ok {
		n, ok = readAll(fd, planBuf[:])
	}
	closeFD(fd)
	if !ok || n < headerSize || view(planBuf[:len(magic)]) != magic {
		return nil
	}
	head, ops := planBuf[len(magic):headerSize], planBuf[headerSize:n]
	if int(get32(head)) != n || get32(head[4:]) != sum(ops) {
		return nil
	}
	return ops
}

// trusted tells whether a file belongs to root and to nobody else: what it says
// will be done.
func trusted(fd uintptr) bool {
	r := syscall6(sysStatx, fd, text("\x00"), atEmptyPath, statxMode|statxUID, address(buffer[:]), 0)
	// struct statx: stx_uid at 20, stx_mode at 28.
	return !failed(r) && get32(buffer[20:]) == 0 && get16(buffer[28:])&0o022 == 0
}

// pathText is a path put together in pathBuf.
type pathText struct{ n int }

func (p *pathText) add(s string) { p.n += copy(pathBuf[p.n:len(pathBuf)-1], s) }

func (p *pathText) address() uintptr {
	pathBuf[p.n] = 0
	return address(pathBuf[:])
}

// exec becomes the command. It returns if that did not work.
func (c *command) exec(env environment) {
	if !entered {
		keepQuitIgnored() // else every signal is still as it was
	}
	skip, more := "", ""
	if cwdBuf[0] != '/' || cwdBuf[1] == 0 || failed(syscall6(sysChdir, address(cwdBuf[:]), 0, 0, 0, 0, 0)) {
		skip, more = "PWD", "PWD=/"
	}
	x := lists{list(c.argv, "", ""), list(env, skip, more)}
	name := c.argv[0]
	for i := range len(name) {
		if name[i] == '/' {
			x.execve(listPlace[0])
			return
		}
	}
	x.search(name, env)
}

// lists are the addresses of argument list and environment.
type lists struct{ argv, env uintptr }

func (x lists) execve(file uintptr) { syscall6(sysExecve, file, x.argv, x.env, 0, 0, 0) }

// defaultPath is where package runtime looks for commands without PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// search looks for a command in PATH, as execvp(3) does, and becomes the first
// that may be executed.
func (x lists) search(name string, env environment) {
	path, set := env.lookup("PATH")
	if !set {
		path = defaultPath
	}
	for more := true; more; {
		dir := path
		more = false
		for i := range len(path) {
			if path[i] == ':' {
				dir, path, more = path[:i], path[i+1:], true
				break
			}
		}
		if dir == "" {
			dir = "."
		}
		if len(dir)+len(name)+2 > len(pathBuf) {
			return
		}
		var p pathText
		p.add(dir)
		p.add("/")
		p.add(name)
		if file := p.address(); syscall6(sysFaccessat, atCwd, file, xOK, 0, 0, 0) == 0 {
			x.execve(file)
			return
		}
	}
}

// A wayBack leads from the middle of a plan to where the program was called.
type wayBack struct {
	namespace, root, cwd, exe uintptr
	args                      []string
	env                       environment
}

func (w *wayBack) open() bool {
	w.namespace = open(text("/proc/self/ns/mnt\x00"), oCloexec)
	w.root = open(text("/\x00"), oCloexec|oPath)
	w.cwd = open(text(".\x00"), oCloexec|oPath)
	w.exe = open(text("/proc/self/exe\x00"), oCloexec|oPath)
	if failed(syscall6(sysGetcwd, address(cwdBuf[:]), uintptr(len(cwdBuf)), 0, 0, 0, 0)) {
		cwdBuf[0] = 0
	}
	return !failed(w.namespace) && !failed(w.root) && !failed(w.cwd) && !failed(w.exe)
}

func (w *wayBack) close() {
	closeFD(w.namespace)
	closeFD(w.root)
	closeFD(w.cwd)
	closeFD(w.exe)
}

// restart starts the program again, where it was called, with one more variable
// that tells why. It does not return.
func (w *wayBack) restart(why string) {
	if !failed(syscall6(sysSetns, w.namespace, 0, 0, 0, 0, 0)) &&
		!failed(syscall6(sysFchdir, w.root, 0, 0, 0, 0, 0)) &&
		!failed(syscall6(sysChroot, text(".\x00"), 0, 0, 0, 0, 0)) &&
		!failed(syscall6(sysFchdir, w.cwd, 0, 0, 0, 0, 0)) {
		listBytes, listCount = 0, 0
		argv, env := list(w.args, "", ""), list(w.env, "", why)
		syscall6(sysExecveat, w.exe, text("\x00"), argv, env, atEmptyPath, 0)
	}
	// Nothing that could say more leads on from here. The text is as other errors of
	// plash look, see package main.
	const lost = "plash run: cannot go back to where it was called\n"
	syscall6(sysWrite, 2, text(lost), uintptr(len(lost)), 0, 0, 0)
	exit(125)
}

func open(path, flags uintptr) uintptr { return syscall6(sysOpenat, atCwd, path, flags, 0, 0, 0) }

// closeFD closes a descriptor; an error in its place is none.
func closeFD(fd uintptr) {
	if !failed(fd) {
		syscall6(sysClose, fd, 0, 0, 0, 0, 0)
	}
}

// readFile reads a whole file that is smaller than b.
func readFile(path uintptr, b []byte) (n int, ok bool) {
	fd := open(path, oCloexec)
	if failed(fd) {
		return 0, false
	}
	n, ok = readAll(fd, b)
	closeFD(fd)
	return n, ok
}

func readAll(fd uintptr, b []byte) (n int, ok bool) {
	for n < len(b) {
		r := syscall6(sysRead, fd, address(b[n:]), uintptr(len(b)-n), 0, 0, 0)
		if failed(r) {
			return 0, false
		}
		if r == 0 {
			return n, true
		}
		n += int(r)
	}
	return 0, false
}
