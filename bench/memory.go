package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is what processes have in memory, in bytes.
type memory struct {
	rss  uint64 // resident
	pss  uint64 // the same, with pages of several processes shared out among them
	anon uint64 // of rss, what is backed by no file, so that the kernel cannot just drop it
}

// memoryOf adds up what processes have in memory.
func memoryOf(pids []int) (sum memory, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return memory{}, err
		}
		m, err := parseRollup(text)
		if err != nil {
			return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum.rss += m.rss
		sum.pss += m.pss
		sum.anon += m.anon
	}
	return sum, nil
}

// parseRollup reads /proc/PID/smaps_rollup: behind a line with addresses, lines like
// "Rss:    123 kB".
func parseRollup(text []byte) (m memory, err error) {
	found := 0
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		to, ok := map[string]*uint64{"Rss:": &m.rss, "Pss:": &m.pss, "Anonymous:": &m.anon}[fields[0]]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return memory{}, err
		}
		*to = n << 10
		found++
	}
	if found != 3 {
		return memory{}, errors.New("smaps_rollup lacks Rss, Pss or Anonymous")
	}
	return m, nil
}

// cells are the columns of a table of memory.
func (m memory) cells() (cells []*cell) {
	for _, bytes := range []uint64{m.rss, m.pss, m.anon} {
		cells = append(cells, &cell{Value: float64(bytes) / (1 << 20)})
	}
	return cells
}

var memoryColumns = []column{{"resident", "MB"}, {"proportional", "MB"}, {"anonymous", "MB"}}

// processesOf returns the processes that run a program. Those that have ended and were not
// waited for run none.
func processesOf(program string) (pids []int) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil
	}
	want, err := stat(program)
	if err != nil {
		return nil
	}
	for _, link := range links {
		// The link's text would be another one in a process that has changed its root.
		got, err := stat(link)
		if errors.Is(err, fs.ErrNotExist) || err != nil || got.Dev != want.Dev || got.Ino != want.Ino {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func stat(path string) (st unix.Stat_t, err error) {
	err = unix.Stat(path, &st)
	return st, err
}
