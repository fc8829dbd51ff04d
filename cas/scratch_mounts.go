package cas

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// unmounted returns those of the names under scratch/ that appear in no mount
// of any living process' mount namespace. When the processes cannot be listed
// with certainty it returns none: a later Reclaim will see.
//
// A mount namespace that no process lives in, but that a bind mount or an open
// descriptor keeps, is not seen.
func unmounted(names []string) []string {
	namespaces, ok := mountNamespaces()
	if !ok {
		return nil
	}
	left := append([]string(nil), names...)
	for _, pids := range namespaces {
		table, ok := mountTable(pids)
		if !ok {
			return nil
		}
		n := 0
		for _, name := range left {
			// Our names have nothing that the table would escape. An overlay shows the
			// name in its upperdir= option, a mount in the directory in its mount point.
			if !bytes.Contains(table, []byte(name)) {
				left[n] = name
				n++
			}
		}
		left = left[:n]
		if n == 0 {
			break
		}
	}
	return left
}

// mountNamespaces finds the mount namespaces of all processes: for each the
// processes that live in it. False if processes came and went too quickly to be
// sure that none was missed, or if /proc tells nothing.
//
// A process that ends after it was listed may have forked a child that was not
// listed; so the list is made again until every process that is new since the
// list before could be looked at. (Processes that stay unreadable are zombies,
// and were already dead when the last list began.)
func mountNamespaces() (map[string][]int, bool) {
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(proc)
	known := make(map[int]bool)
	namespaces := make(map[string][]int)
	for range 10 {
		if _, err := unix.Seek(proc, 0, io.SeekStart); err != nil {
			return nil, false
		}
		missed := false
		err := eachEntry(proc, func(name string, _ byte) {
			pid, err := strconv.Atoi(name)
			if err != nil || known[pid] {
				return
			}
			known[pid] = true
			var link [64]byte
			n, err := unix.Readlinkat(proc, name+"/ns/mnt", link[:])
			switch {
			case err == nil:
				ns := string(link[:n])
				namespaces[ns] = append(namespaces[ns], pid)
			case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
				// Another user's process cannot use our scratch, or we could look at it.
			default:
				missed = true
			}
		})
		if err != nil {
			return nil, false
		}
		if !missed {
			return namespaces, len(known) > 0
		}
	}
	return nil, false
}

// mountTable reads the mount table of a namespace through the first of its
// processes that sees it whole; false if none does. A process that is confined
// to a directory (chroot), or to a tree that was detached, sees only the mounts below
// that, which may be none; then the namespace is looked at from its own root. A namespace
// that is gone has an empty table.
func mountTable(pids []int) ([]byte, bool) {
	confined := 0
	for _, pid := range pids {
		table, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
		if err != nil {
			continue // it has ended meanwhile
		}
		if whole(table) {
			return table, true
		}
		confined = pid
	}
	if confined == 0 {
		return nil, true
	}
	table, err := tableWithin(confined)
	return table, err == nil && whole(table)
}

// whole tells whether a mount table is that of a process whose root is the namespace's.
func whole(table []byte) bool {
	for line := range bytes.Lines(table) {
		// proc_pid_mountinfo(5): id, parent id, device, root, mount point.
		if f := bytes.Fields(line); len(f) > 4 && string(f[4]) == "/" {
			return true
		}
	}
	return false
}

// tableWithin enters the mount namespace of a process and reads the table there:
// setns(2) makes the namespace's root the thread's. Only root may do that.
func tableWithin(pid int) (table []byte, err error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(proc)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return
		}
		table, err = readAt(proc, "thread-self/mountinfo")
	}()
	<-done
	return table, err
}

func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(f)
}
