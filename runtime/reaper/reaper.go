// Package reaper is for a process that stands at the root of others: it waits for the command that it has
// started and for all that are left to it ([Wait]), and, where there is no pid namespace whose
// end is theirs, gets them all ([Adopt]) and kills them ([KillDescendants]).
//
// Invariants:
//   - Any child of the process may be waited for here: nothing else in it is to wait for children
//     meanwhile.
//   - After KillDescendants no process is left that this one has started, or that those have, if there
//     is a /proc to find them by.
//
// It starts nothing, and handles no signals.
package reaper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Wait waits for the command, a child, and meanwhile for the processes whose parents have left
// them to this one. It returns how the command ended.
func Wait(command int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case pid == command:
			return status, nil
		}
	}
}

// Adopt has this process get those whose parents end, of all that it will have started
// (PR_SET_CHILD_SUBREAPER, since Linux 3.4).
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("have processes left to the init: %w", err)
	}
	return nil
}

// KillDescendants kills all processes that this one started, and theirs, and waits until
// they are gone. As no other process gets them after [Adopt], that is when none is left to wait for.
// Proc is /proc, opened before the root was another one.
func KillDescendants(proc *os.Root) error {
	if _, err := proc.Lstat("self"); err != nil {
		return nil // nothing is mounted there, and others will have to do it
	}
	for {
		for _, pid := range descendants(proc) {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.ECHILD):
				return nil
			case err != nil:
				return fmt.Errorf("wait for the processes of the command: %w", err)
			}
			if pid == 0 {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// descendants lists the processes below this one.
func descendants(proc *os.Root) []int {
	entries, err := fs.ReadDir(proc.FS(), ".")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := proc.ReadFile(e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid, the name in parentheses, which may contain anything, state,
		// parent.
		text := string(b)
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(f) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	all := children[os.Getpid()]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
