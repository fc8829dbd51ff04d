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

	"golang.org/x/sys/unix"
)

// scratchDir is the directory of the store that holds everything unfinished:
// upper directories of runs and builds, files not yet published.
const scratchDir = "scratch"

// A Scratch is a directory under scratch/ that belongs to the process that
// made it. The name says who that is, so that no lock, no list and no
// supervising process is needed: what a killed process leaves is found and
// removed by [Store.Reclaim] of the next one.
//
// The process may replace itself by another program (exec keeps process id and
// start time), and what it started may go on using the directory through mounts
// of a mount namespace of their own: both keep it alive.
type Scratch struct {
	path string
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
		return nil, fmt.Errorf("make scratch directory: %w", err)
	}
	return &Scratch{path: path}, nil
}

// Path is the directory.
func (sc *Scratch) Path() string { return sc.path }

// UsedBy notes the filesystem, by the number that stat(2) gives as st_dev, that
// everyone who goes on using the directory has mounted: the overlayfs whose upper
// directory it is. When the process is gone and that filesystem too, Reclaim need
// not search the mounts of all processes. It is no more than a help: where it
// cannot be noted, nothing is lost but time.
func (sc *Scratch) UsedBy(dev uint64) {
	_ = unix.Setxattr(sc.path, attrUsedBy, strconv.AppendUint(nil, dev, 10), 0)
}

// attrUsedBy is the extended attribute that holds what UsedBy notes.
const attrUsedBy = "trusted.plash.usedby"

// Remove deletes the directory with all that is in it. Mounts still in it are
// detached, never entered.
func (sc *Scratch) Remove() error {
	if err := removeScratch(filepath.Dir(sc.path), filepath.Base(sc.path)); err != nil {
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
	keep   verdict = iota // in use, or not ours to judge
	dead                  // nobody can be using it
	orphan                // its process is gone; a mount may still use it
)

// judge looks at the owner alone, which costs no more than three system calls.
func (o owner) judge() verdict {
	me := self()
	switch {
	case o.boot != me.boot && o.boot != "0" && me.boot != "0":
		return dead
	case o.pidNS != me.pidNS:
		return keep
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
// once. Entries made in another pid namespace of this boot are not ours to
// judge, because their process ids mean nothing here, and stay until a plash in
// there, or one after the next boot, takes them away. It follows that one store
// must not be used by two machines at the same time.
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
			if filesystemGone(filepath.Join(dir, name)) {
				gone = append(gone, name)
			} else {
				orphans = append(orphans, name)
			}
		}
	}
	if len(orphans) > 0 {
		gone = append(gone, unmounted(orphans)...)
	}
	var errs []error
	for _, name := range gone {
		if err := removeScratch(dir, name); err != nil {
			errs = append(errs, fmt.Errorf("reclaim scratch %s: %w", filepath.Join(dir, name), err))
		}
	}
	return errors.Join(errs...)
}

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
