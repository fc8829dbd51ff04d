package cas

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// scratchDir is the directory of the store that holds everything unfinished:
// upper directories of builds, trees and files not yet published.
const scratchDir = "scratch"

// A Scratch is a directory under scratch/ that belongs to the process that
// made it. The name says who that is, so that no lock, no list and no
// supervising process is needed: what a killed process leaves is found and
// removed by [Store.Reclaim] of the next one.
//
// What the process started may go on using the directory through mounts of a
// mount namespace of its own, which keeps it alive. In another pid namespace the
// name means nothing: there a lock tells that the process lives.
type Scratch struct {
	path string
	lock int // the directory, locked as long as the process has it open; -1: not
}

// Scratch makes an empty directory for this process. Kind is a short word of
// lower case letters that tells a reader of the directory what it is for.
func (s *Store) Scratch(kind string) (*Scratch, error) {
	path := filepath.Join(s.Dir(), scratchDir, s.scratchName(kind))
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make scratch directory: %w", err)
		}
		err = os.Mkdir(path, 0o700)
	}
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			at.Path = filepath.Dir(path) // its own name says nothing to anyone
		}
		return nil, fmt.Errorf("make scratch directory: %w", err)
	}
	return &Scratch{path: path, lock: lockScratch(path)}, nil
}

// lockScratch opens and locks a directory, or gives -1: where there are no locks,
// nobody takes one for free.
func lockScratch(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}

// Path is the directory.
func (sc *Scratch) Path() string { return sc.path }

// Remove deletes the directory with all that is in it. Mounts still in it are
// detached, never entered.
func (sc *Scratch) Remove() error {
	err := removeScratch(filepath.Dir(sc.path), filepath.Base(sc.path), sc.lock >= 0)
	if sc.lock >= 0 {
		unix.Close(sc.lock)
		sc.lock = -1
	}
	if err != nil {
		return fmt.Errorf("remove scratch %s: %w", sc.path, err)
	}
	return nil
}

// scratchName is a new name, without directory, for something of this process
// under scratch/, file or directory.
func (s *Store) scratchName(kind string) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	id := self()
	return strings.Join([]string{
		kind, strconv.Itoa(id.pid), id.start, id.pidNS, id.boot, hex.EncodeToString(random[:]),
	}, ".")
}

// An owner identifies a process for as long as the machine's disk lasts: a
// process id alone comes back after its process, and after a boot, and means
// another process in another pid namespace. "0" stands for what /proc would not
// tell.
type owner struct {
	pid   int
	start string // clock ticks after boot: field 22 of /proc/PID/stat
	pidNS string // inode number of the pid namespace
	boot  string // first digits of the boot id
}

// self is this process.
var self = sync.OnceValue(func() owner {
	id := owner{pid: os.Getpid(), start: "0", pidNS: "0", boot: bootID()}
	if t, ok := startTime("self"); ok {
		id.start = t
	}
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) == nil {
		id.pidNS = strconv.FormatUint(st.Ino, 10)
	}
	return id
})

// bootID is the beginning of a number that each boot of the machine has anew; "0"
// where it cannot be known.
var bootID = sync.OnceValue(func() string {
	var b [64]byte
	if n, err := readProc("/proc/sys/kernel/random/boot_id", b[:]); err == nil && n >= 8 {
		return string(b[:8])
	}
	return "0"
})

// parseScratchName reads the owner out of a name; false if the name is none of
// ours.
func parseScratchName(name string) (owner, bool) {
	f := strings.Split(name, ".")
	if len(f) != 6 {
		return owner{}, false
	}
	pid, err := strconv.Atoi(f[1])
	if err != nil || pid <= 0 {
		return owner{}, false
	}
	return owner{pid: pid, start: f[2], pidNS: f[3], boot: f[4]}, true
}

// startTime reads when a process started; false if there is no such process or
// it cannot be known.
func startTime(pid string) (string, bool) {
	// A stat line is a few hundred bytes: its numbers are at most 20 digits each.
	var buf [2048]byte
	n, err := readProc("/proc/"+pid+"/stat", buf[:])
	if err != nil {
		return "", false
	}
	line := string(buf[:n])
	// The second field is the command's name in parentheses and may contain
	// anything, spaces and parentheses too.
	f := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(f) < 20 {
		return "", false
	}
	// proc_pid_stat(5): field 22 is starttime, and f begins with field 3.
	return f[19], true
}

// readProc reads a small file of /proc with three system calls and none of
// package os' polling set-up.
func readProc(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Read(fd, buf)
}

// verdict says what is to be done with a scratch entry.
type verdict int

const (
	keep    verdict = iota // in use, or not ours to judge
	dead                   // nobody can be using it
	orphan                 // its process is gone; a mount may still use it
	foreign                // its process is, or was, in another pid namespace
)

// judge looks at the owner alone, which costs no more than three system calls.
func (o owner) judge() verdict {
	me := self()
	switch {
	case o.boot != me.boot && o.boot != "0" && me.boot != "0":
		return dead
	case o.pidNS != me.pidNS:
		return foreign
	case unix.Kill(o.pid, 0) == unix.ESRCH:
		return orphan
	case o.start == "0" || me.start == "0":
		return keep
	}
	t, ok := startTime(strconv.Itoa(o.pid))
	if !ok && unix.Kill(o.pid, 0) != unix.ESRCH {
		return keep // /proc hides it (hidepid)
	}
	if t == o.start {
		return keep
	}
	return orphan
}

// Reclaim removes what processes that are gone have left under scratch/.
//
// An entry stays while its process lives, and while a mount namespace of a
// living process has a mount that names it: a daemon started in a container
// goes on after the command that began it. Entries from before this boot go at
// once. Of entries made in another pid namespace of this boot, where process ids
// mean nothing here, directories go when nobody holds their lock, and files stay
// until a plash in there, or one after the next boot, takes them away. It follows
// that one store must not be used by two machines at the same time.
//
// Two Reclaims at once do not disturb each other: names are never used again, so
// an entry that is dead stays dead, and the first who locks a directory removes
// it. Errors of single entries are collected; the others are removed all the same.
func (s *Store) Reclaim() error {
	dir := filepath.Join(s.Dir(), scratchDir)
	names, err := scratchNames(dir)
	if err != nil || len(names) == 0 {
		return err
	}
	var gone, orphans []string
	for _, name := range names {
		o, ok := parseScratchName(name)
		if !ok {
			continue
		}
		switch o.judge() {
		case dead:
			gone = append(gone, name)
		case orphan:
			orphans = append(orphans, name)
		case foreign:
			if lockFree(filepath.Join(dir, name)) {
				gone = append(gone, name)
			}
		}
	}
	if len(orphans) > 0 {
		gone = append(gone, unmounted(orphans)...)
	}
	var errs []error
	for _, name := range gone {
		if err := removeScratch(dir, name, false); err != nil {
			errs = append(errs, fmt.Errorf("reclaim scratch %s: %w", filepath.Join(dir, name), err))
		}
	}
	return errors.Join(errs...)
}

// lockFree tells whether nobody holds the lock of a directory, and nobody is about
// to take it: that a process does right after it made the directory.
func lockFree(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || time.Since(time.Unix(st.Ctim.Unix())) < youth {
		return false
	}
	return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == nil
}

// youth is how old a directory must be to be judged by its lock; tests change it.
var youth = time.Minute

func scratchNames(dir string) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list scratch %s: %w", dir, err)
	}
	defer unix.Close(fd)
	var names []string
	err = eachEntry(fd, func(name string, _ byte) { names = append(names, name) })
	if err != nil {
		return nil, fmt.Errorf("list scratch %s: %w", dir, err)
	}
	return names, nil
}

// eachEntry reads a directory from where its descriptor stands, without . and ..,
// and gives names with their types (DT_DIR and so on, DT_UNKNOWN where the
// filesystem does not tell). This is what package os would do, without its
// preparations for polling, which cost more than the rest of looking at an empty
// scratch.
func eachEntry(fd int, f func(name string, typ byte)) error {
	// linux_dirent64 in getdents64(2): 8 bytes of inode number, 8 of offset, 2 of
	// the record's length, 1 of type, the name with a NUL.
	const lenAt, typeAt, nameAt = 16, 18, 19
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for rest := buf[:n]; len(rest) > nameAt; {
			size := int(binary.NativeEndian.Uint16(rest[lenAt:]))
			if size <= nameAt || size > len(rest) {
				return fmt.Errorf("directory entry of %d bytes", size)
			}
			name, _, _ := bytes.Cut(rest[nameAt:size], []byte{0})
			if s := string(name); s != "." && s != ".." {
				f(s, rest[typeAt])
			}
			rest = rest[size:]
		}
	}
}
