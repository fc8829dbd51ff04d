//go:build amd64 || arm64

package replay

// findPlan reads the plan of a container, nil if there is none.
func findPlan(id string, env environment) []byte {
	store, below := storeDir(env)
	if store == "" || store[0] != '/' || len(store) > 3000 {
		return nil
	}
	var p pathText
	p.add(store)
	p.add(below)
	p.add("/ids/")
	p.add(id)
	n, ok := readFile(p.address(), planBuf[:])
	// The place below containers/, and a newline: package container, place.
	if !ok || n < 2 || n > 1000 || planBuf[n-1] != '\n' {
		return nil
	}
	p.n = 0
	p.add(store)
	p.add(below)
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
	if !ok {
		return nil
	}
	return decode(planBuf[:n])
}

// decode gives what is to be done by a plan as it is stored, nil if it is none or torn.
func decode(b []byte) []byte {
	if len(b) < headerSize || view(b[:len(magic)]) != magic {
		return nil
	}
	head, ops := b[len(magic):headerSize], b[headerSize:]
	if int(get32(head)) != len(b) || get32(head[4:]) != sum(ops) {
		return nil
	}
	return ops
}

// storeDir is where the store is, in two parts, as package main finds it.
func storeDir(env environment) (dir, below string) {
	if dir, _ = env.lookup("PLASH_DATA"); dir != "" {
		return dir, ""
	}
	if user == 0 {
		return "/var/lib/plash", ""
	}
	if dir, _ = env.lookup("XDG_DATA_HOME"); dir != "" && dir[0] == '/' {
		return dir, "/plash"
	}
	dir, _ = env.lookup("HOME")
	return dir, "/.local/share/plash"
}

// trusted tells whether a file belongs to the user and to nobody else: what it says
// will be done.
func trusted(fd uintptr) bool {
	r := syscall6(sysStatx, fd, text("\x00"), atEmptyPath, statxMode|statxUID, address(buffer[:]), 0)
	// struct statx: stx_uid at 20, stx_mode at 28.
	return !failed(r) && uintptr(get32(buffer[20:])) == user && get16(buffer[28:])&0o022 == 0
}

// pathText is a path put together in pathBuf.
type pathText struct{ n int }

func (p *pathText) add(s string) { p.n += copy(pathBuf[p.n:len(pathBuf)-1], s) }

func (p *pathText) address() uintptr {
	pathBuf[p.n] = 0
	return address(pathBuf[:])
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
