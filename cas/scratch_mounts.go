package cas

import (
	"bytes"
	"errors"
	"io"
	"os"
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
// to a directory (chroot) sees only the mounts below it, and then not one whose
// mount point is "/". A namespace that is gone has an empty table.
func mountTable(pids []int) ([]byte, bool) {
	alive := false
	for _, pid := range pids {
		table, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
		if err != nil {
			continue // it has ended meanwhile
		}
		alive = true
		for line := range bytes.Lines(table) {
			// proc_pid_mountinfo(5): id, parent id, device, root, mount point.
			if f := bytes.Fields(line); len(f) > 4 && string(f[4]) == "/" {
				return table, true
			}
		}
	}
	return nil, !alive
}
