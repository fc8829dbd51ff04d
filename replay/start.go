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

	prSetName = 15 // PR_SET_NAME
	mntDetach = 2  // MNT_DETACH

	sIfmt, sIfifo, sIfsock = 0o170000, 0o010000, 0o140000

	statxType = 0x1 // STATX_TYPE
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
	// user is who calls. A user's plan begins with a user namespace, which a process
	// with threads cannot enter: so only before Go starts there is one.
	user uintptr
)

// none is no descriptor.
const none = ^uintptr(0)

func init() {
	if !entered {
		start(processArgs(), processEnv())
	}
}

// start replays the plan for the program's command line, if there is one. It
// returns where nothing has been done.
func start(args []string, env environment) {
	c, ok := parse(args)
	user = syscall6(sysGetuid, 0, 0, 0, 0, 0, 0)
	if !ok || syscall6(sysGeteuid, 0, 0, 0, 0, 0, 0) != user || user != 0 && !entered {
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
		m.slots[i] = none
	}
	ok = m.run(env)
	if m.serving {
		return
	}
	m.wait()
	switch {
	case ok:
		c.exec(w, env, m.defaults())
		w.restart(m)
	case m.committed:
		w.restart(m)
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

// exec becomes the command. If that does not work, it starts the program again to find out
// why, in the container's root: see Inside.
func (c *command) exec(w *wayBack, env, image environment) {
	if !entered {
		keepQuitIgnored() // else every signal is still as it was
	}
	skip, more := "", ""
	if cwdBuf[0] != '/' || cwdBuf[1] == 0 || failed(syscall6(sysChdir, address(cwdBuf[:]), 0, 0, 0, 0, 0)) {
		skip, more = "PWD", "PWD=/"
	}
	also, _ := image.lookup("PATH")
	again := listCount
	listAdd(Inside)
	listAdd(also)
	argv := list(c.argv, "", "")
	begin := listCount
	for _, v := range image {
		if !env.has(v) {
			listAdd(v)
		}
	}
	list(env, skip, more)
	x := lists{argv, addresses(listPlace[begin:])}
	if name := c.argv[0]; hasSlash(name) {
		x.execve(listPlace[again+2])
	} else {
		path, set := env.lookup("PATH")
		if !set {
			path = defaultPath
			if also != "" {
				path = also
			}
		}
		if !x.search(name, path) && also != "" {
			x.search(name, also)
		}
	}
	w.exec(addresses(listPlace[again:]), x.env)
}

func hasSlash(name string) bool {
	for i := range len(name) {
		if name[i] == '/' {
			return true
		}
	}
	return false
}

// lists are the addresses of argument list and environment.
type lists struct{ argv, env uintptr }

func (x lists) execve(file uintptr) { syscall6(sysExecve, file, x.argv, x.env, 0, 0, 0) }

// defaultPath is where package runtime looks for commands without PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// search looks for a command in the directories of a PATH, as execvp(3) does, and becomes
// the first that may be executed. It tells whether there was one.
func (x lists) search(name, path string) (found bool) {
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
			return false
		}
		var p pathText
		p.add(dir)
		p.add("/")
		p.add(name)
		if file := p.address(); syscall6(sysFaccessat, atCwd, file, xOK, 0, 0, 0) == 0 {
			x.execve(file)
			return true
		}
	}
	return false
}
