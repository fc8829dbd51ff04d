//go:build amd64 || arm64

package replay

import "unsafe"

// Supported says whether plans can be replayed on this architecture.
const Supported = true

// The arguments and the environment of the process, as packages os and syscall get
// them from package runtime.
//
//go:linkname processArgs os.runtime_args
func processArgs() []string

//go:linkname processEnv syscall.runtime_envs
func processEnv() []string

// A command is a command line that a plan is good for.
type command struct {
	id   string // digits
	argv []string
}

// parse takes the arguments of a process apart: plash-run NUMBER [--] CMD…, or the
// same as "plash run". It knows no options; package main does.
func parse(args []string) (c command, ok bool) {
	if len(args) == 0 {
		return c, false
	}
	name, words := base(args[0]), args[1:]
	if name == "plash" && len(words) > 0 && words[0] == "run" {
		name, words = "plash-run", words[1:]
	}
	if name != "plash-run" || len(words) < 2 || !isID(words[0]) {
		return c, false
	}
	c.id, c.argv = words[0], words[1:]
	if c.argv[0] == "--" {
		c.argv = c.argv[1:]
		return c, len(c.argv) > 0 && c.argv[0] != "--"
	}
	return c, len(c.argv[0]) > 0 && c.argv[0][0] != '-'
}

// base is the last element of a path.
func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

// isID tells whether a word is the number of a container that can have a plan.
func isID(s string) bool {
	if s == "" || len(s) > 18 || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// An environment is the variables of a process.
type environment []string

// lookup finds a variable; of several of one name the first, as getenv(3).
func (e environment) lookup(name string) (value string, ok bool) {
	for _, v := range e {
		if names(v, name) {
			return v[len(name)+1:], true
		}
	}
	return "", false
}

// has tells whether there is a variable of the same name as v.
func (e environment) has(v string) bool {
	for i := range len(v) {
		if v[i] == '=' {
			_, set := e.lookup(v[:i])
			return set
		}
	}
	return true // it is none
}

// names tells whether a variable has that name.
func names(v, name string) bool {
	return len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name
}

// Lists for execve(2): strings that end with a zero, and their addresses, which
// another zero ends. The process' own are copies that no zero need follow.
var (
	listText  [256<<10 + MaxSize]byte
	listPlace [16<<10 + MaxDefaults]uintptr
	listBytes int // how much of them is used
	listCount int
)

// fit tells whether all arguments and variables can be put into lists, with two more
// of either, and those that a plan gives.
func fit(args []string, env environment) bool {
	size, count := 2*len(longest)+MaxSize, len(args)+len(env)+6+MaxDefaults
	for _, all := range [...][]string{args, env} {
		for _, s := range all {
			size += len(s) + 1
		}
	}
	return size <= len(listText) && count <= len(listPlace)
}

// longest is as long as every string that is added to an environment.
const longest = Var + "=" + Stale + "\x00"

// list makes a list of strings: of all but the variable skip, and of one more that
// is not empty. It returns where the addresses are.
func list(all []string, skip, more string) uintptr {
	begin := listCount
	for _, s := range all {
		if skip == "" || !names(s, skip) {
			listAdd(s)
		}
	}
	if more != "" {
		listAdd(more)
	}
	listPlace[listCount] = 0
	listCount++
	return addresses(listPlace[begin:])
}

func listAdd(s string) {
	listPlace[listCount] = address(listText[listBytes:])
	listCount++
	listBytes += copy(listText[listBytes:], s)
	listText[listBytes] = 0
	listBytes++
}

// text is the address of a constant that ends with a zero.
func text(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }
