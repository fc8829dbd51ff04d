package erofs

import (
	"fmt"
	"hash/maphash"
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFollow is how many symbolic links a path may go through, as in Linux.
const maxFollow = 40

// dirFor returns the directory that path lies in, made if it is not there, and
// path's last name, which is empty for the root.
func (t *Tree) dirFor(path string) (dir uint32, name string, err error) {
	t.paths++
	if i := strings.LastIndexByte(path, '/'); i > 0 && t.lastGood && path[:i] == t.lastDir && plainName(path[i+1:]) {
		return t.lastEnt, path[i+1:], nil
	}
	dir, name, err = t.walk(path, true)
	if err != nil {
		return 0, "", err
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 && plainName(path[i+1:]) {
		t.lastDir, t.lastEnt, t.lastGood = strings.Clone(path[:i]), dir, true
	}
	return dir, name, nil
}

func plainName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= MaxName && strings.IndexByte(s, 0) < 0
}

// dirAt returns the directory at path, made if it is not there.
func (t *Tree) dirAt(path string) (uint32, error) {
	t.paths++
	dir, name, err := t.walk(path, true)
	if err != nil || name == "" {
		return dir, err
	}
	return t.step(dir, name, true, new(int))
}

// walk follows path to the directory of its last name. Empty and "." names
// are nothing, ".." is one up and may not leave the root; symbolic links on
// the way are followed within the root, as tar and container engines do.
func (t *Tree) walk(path string, make bool) (dir uint32, name string, err error) {
	if len(path) > maxPath {
		return 0, "", fmt.Errorf("%w: %d bytes, the limit is %d", ErrPath, len(path), maxPath)
	}
	parts, err := splitPath(path)
	if err != nil || len(parts) == 0 {
		return rootEntry, "", err
	}
	follows := 0
	for _, p := range parts[:len(parts)-1] {
		if dir, err = t.step(dir, p, make, &follows); err != nil {
			return 0, "", err
		}
	}
	return dir, parts[len(parts)-1], nil
}

// splitPath splits a path into names and resolves "." and "..".
func splitPath(path string) ([]string, error) {
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			if len(parts) == 0 {
				return nil, fmt.Errorf("%w: it leaves the root", ErrPath)
			}
			parts = parts[:len(parts)-1]
		case len(p) > MaxName:
			return nil, fmt.Errorf("%w: a name of %d bytes, the limit is %d", ErrPath, len(p), MaxName)
		case strings.IndexByte(p, 0) >= 0:
			return nil, fmt.Errorf("%w: a NUL byte", ErrPath)
		default:
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// step goes from dir to the directory called name in it.
func (t *Tree) step(dir uint32, name string, make bool, follows *int) (uint32, error) {
	e, ok := t.find(dir, name)
	if ok {
		in := t.inodes.at(t.ents.at(e).ino)
		switch {
		case in.isDir():
			return e, nil
		case in.isSymlink():
			return t.follow(dir, in, make, follows)
		case !in.isWhiteout():
			return 0, fmt.Errorf("%w: %q is not a directory", ErrPath, name)
		}
	}
	if !make {
		return 0, fmt.Errorf("%w: no directory %q", ErrPath, name)
	}
	if t.implied++; t.implied > freeImplied+impliedPerEntry*t.paths {
		return 0, fmt.Errorf("%w: %d entries lie in %d directories that have none", ErrLimit, t.paths, t.implied)
	}
	in := impliedDir
	if ok { // a whiteout
		in.flags |= inodeOpaque
		t.kill(e)
	}
	if err := t.insert(dir, name, t.addInode(in)); err != nil {
		return 0, err
	}
	return uint32(t.ents.n - 1), nil
}

// follow goes to the directory that a symbolic link in dir points at. ".." does
// not go above the root, as in a chroot.
func (t *Tree) follow(dir uint32, link *inode, make bool, follows *int) (uint32, error) {
	if *follows++; *follows > maxFollow {
		return 0, fmt.Errorf("%w: %w", ErrPath, unix.ELOOP)
	}
	target := t.target(link)
	if target[0] == '/' {
		dir = rootEntry
	}
	var err error
	for p := range strings.SplitSeq(target, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			dir = t.ents.at(dir).parent
		case len(p) > MaxName:
			return 0, fmt.Errorf("%w: a name of %d bytes in a symbolic link on the way", ErrPath, len(p))
		default:
			if dir, err = t.step(dir, p, make, follows); err != nil {
				return 0, err
			}
		}
	}
	return dir, nil
}

// The table maps (directory, name) to an entry, by open addressing. A slot holds
// an entry's number, or 0, which is the root and never looked up. Dead entries
// stay in it and are passed over, until it grows.

func (t *Tree) hash(dir uint32, name []byte) uint64 {
	return maphash.Bytes(t.seed, name) ^ uint64(dir)*0x9E3779B97F4A7C15
}

func (t *Tree) find(dir uint32, name string) (uint32, bool) {
	if name == "" {
		return rootEntry, true
	}
	mask := uint64(len(t.table) - 1)
	for i := (maphash.String(t.seed, name) ^ uint64(dir)*0x9E3779B97F4A7C15) & mask; t.table[i] != 0; i = (i + 1) & mask {
		e := t.ents.at(t.table[i])
		if !e.dead && e.parent == dir && string(t.nameOf(e)) == name {
			return t.table[i], true
		}
	}
	return 0, false
}

// insert adds an entry that is not there yet.
func (t *Tree) insert(dir uint32, name string, ino uint32) error {
	if uint64(len(t.names))+uint64(len(name)) > math.MaxUint32 || t.ents.n == math.MaxInt32 {
		return fmt.Errorf("%w: more than 4 GiB of names", ErrLimit)
	}
	depth := t.ents.at(dir).depth + 1
	if depth > maxDepth {
		return fmt.Errorf("%w: it lies more than %d directories deep", ErrPath, maxDepth)
	}
	if t.live++; 2*t.live > len(t.table) {
		t.grow()
	}
	t.ents.add(entry{parent: dir, name: uint32(len(t.names)), nameLen: uint8(len(name)), ino: ino, depth: depth})
	t.names = append(t.names, name...)
	t.place(uint32(t.ents.n - 1))
	return nil
}

func (t *Tree) place(n uint32) {
	e := t.ents.at(n)
	mask := uint64(len(t.table) - 1)
	i := t.hash(e.parent, t.nameOf(e)) & mask
	for t.table[i] != 0 {
		i = (i + 1) & mask
	}
	t.table[i] = n
}

func (t *Tree) grow() {
	t.table = make([]uint32, 2*len(t.table))
	t.live = 1
	for i := range uint32(t.ents.n) {
		if i != rootEntry && !t.ents.at(i).dead {
			t.live++
			t.place(i)
		}
	}
}

func (t *Tree) kill(e uint32) {
	t.ents.at(e).dead = true
	t.lastGood = false
}
