package copytree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inhabitants are the processes that may be in copies. They are looked for once, when
// that is first asked: who comes later into a copy had its lock before.
type inhabitants struct {
	known bool
	blind bool     // /proc tells nothing
	links []string // roots and working directories
	// hidden are the times, in clock ticks after the boot, at which processes started
	// whose root and working directory may not be read.
	hidden []uint64
}

// of tells whether a process is in a copy, whose lock the caller has.
func (in *inhabitants) of(c *Copy) bool {
	if !in.known {
		in.look()
	}
	if in.blind || in.seen(c) {
		return true
	}
	// A process that may not be looked at, as it is another user's and we lack
	// CAP_SYS_PTRACE, may have been left by who took the copy last, if it is younger.
	namespace, since := c.signature()
	if namespace != pidNamespace() {
		return false // its processes cannot be seen; its lock is free
	}
	for _, start := range in.hidden {
		if start >= since {
			return true
		}
	}
	return false
}

// seen tells whether a process is in a copy that may be looked at.
func (in *inhabitants) seen(c *Copy) bool {
	name := "/" + copiesDir + "/" + filepath.Base(c.dir) + "/" + treeDir
	for _, l := range in.links {
		// The name is no other's. Before it may stand anything, as others see the store
		// elsewhere; behind it, where in the copy.
		if i := strings.Index(l, name); i >= 0 && (len(l) == i+len(name) || l[i+len(name)] == '/') {
			return true
		}
	}
	return false
}

// look reads what /proc tells of all processes.
func (in *inhabitants) look() {
	names, err := filepath.Glob("/proc/[0-9]*")
	in.known, in.blind = true, err != nil || len(names) == 0
	for _, proc := range names {
		for _, link := range []string{"/root", "/cwd"} {
			to, err := os.Readlink(proc + link)
			switch {
			case err == nil:
				in.links = append(in.links, to)
			case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
				// Others than root start nothing that they may not look at in their own copies.
				if t, ok := startTime(proc); ok && os.Geteuid() == 0 {
					in.hidden = append(in.hidden, t)
				}
			}
		}
	}
}

// startTime is when a process started, in clock ticks after the boot: field 22 of
// proc_pid_stat(5). It is false for a process that has ended and waits for its parent.
func startTime(proc string) (uint64, bool) {
	b, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return 0, false
	}
	// The second field, in parentheses, may contain anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0, false
	}
	t, err := strconv.ParseUint(f[19], 10, 64)
	return t, err == nil
}

// ticks is how many clock ticks /proc counts a second: USER_HZ, on all architectures
// that Go knows.
const ticks = 100

// sign notes in the lock file from when on its processes may be in the copy, and in
// which pid namespace.
func (c *Copy) sign() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("take copy: %w", err)
	}
	since := uint64(now.Sec)*ticks + uint64(now.Nsec)*ticks/1e9
	if _, err := c.lock.WriteAt(fmt.Appendf(nil, "%20d %20d\n", pidNamespace(), since), 0); err != nil {
		return fmt.Errorf("take copy: %w", err)
	}
	return nil
}

// signature reads what sign wrote. Where that is not there, it may have been anyone of
// our namespace at any time.
func (c *Copy) signature() (namespace, since uint64) {
	var b [42]byte
	if _, err := c.lock.ReadAt(b[:], 0); err != nil {
		return pidNamespace(), 0
	}
	if _, err := fmt.Sscan(string(b[:]), &namespace, &since); err != nil {
		return pidNamespace(), 0
	}
	return namespace, since
}

// pidNamespace is the inode number of our pid namespace.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

// InUse tells whether a process is in the copy, beside those that have its lock; only of
// those that may be looked at.
func (c *Copy) InUse() bool {
	in := &inhabitants{}
	in.look()
	return in.seen(c)
}

// Evict kills the processes that have their root in the copy, until there are none.
func (c *Copy) Evict() {
	for range 100 {
		in := &inhabitants{}
		in.look()
		if !in.seen(c) {
			return
		}
		names, _ := filepath.Glob("/proc/[0-9]*/root")
		for _, name := range names {
			c.evict(name)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// evict kills a process if its root, as /proc names it, is in the copy.
func (c *Copy) evict(root string) {
	pid, err := strconv.Atoi(filepath.Base(filepath.Dir(root)))
	if err != nil || !c.has(root) {
		return
	}
	// The descriptor is that of the process that has the number now, so look again.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if c.has(root) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended
	}
}

// has tells whether a link of /proc leads into the copy.
func (c *Copy) has(link string) bool {
	to, err := os.Readlink(link)
	return err == nil && (&inhabitants{links: []string{to}}).seen(c)
}
