package rootemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
	"github.com/ihucos/plash/overlay"
)

// A Memory is what was asked for of the files of one filesystem.
type Memory struct {
	mu    sync.Mutex
	files map[inode]*record
	// handles says that the filesystem gives a file the same handle for ever.
	handles bool
}

// An inode tells files apart as far as stat(2) can.
type inode struct {
	ino       uint64
	birthSec  int64
	birthNsec uint32
}

// A record is what was asked for of one file.
type record struct {
	handle string // "" if it is not known
	overlay.Remembered
}

func newMemory() *Memory { return &Memory{files: map[inode]*record{}} }

// lastingHandles tells whether the filesystem of fd names files for ever by what
// name_to_handle_at(2) gives. Those that are asked by messages may forget.
func lastingHandles(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	return slices.Contains([]int64{
		unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
		unix.F2FS_SUPER_MAGIC,
	}, int64(st.Type))
}

func key(id overlay.FileID) inode { return inode{id.Ino, id.BirthSec, id.BirthNsec} }

// find gives the record of a file, nil if there is none.
func (m *Memory) find(id overlay.FileID) *record {
	r := m.files[key(id)]
	if r == nil || r.handle != "" && id.Handle != "" && r.handle != id.Handle {
		return nil
	}
	return r
}

// update changes the record of a file, which is a new one if there was none.
func (m *Memory) update(id overlay.FileID, change func(*record)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.find(id)
	if r == nil {
		r = &record{}
		if m.handles {
			r.handle = id.Handle
		}
		m.files[key(id)] = r
	}
	change(r)
}

// xattr tells whether an attribute of a file is remembered.
func (m *Memory) xattr(id overlay.FileID, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.find(id)
	return r != nil && r.xattr(name)
}

// leaveXattr leaves an attribute to the file itself, from now on, and tells whether it was
// remembered.
func (m *Memory) leaveXattr(id overlay.FileID, name string) (had bool) {
	m.update(id, func(r *record) {
		had = r.xattr(name)
		r.setXattr(name, nil)
	})
	return had
}

func (r *record) xattr(name string) bool {
	return slices.ContainsFunc(r.Xattrs, func(x tarstream.Xattr) bool { return x.Name == name && x.Value != nil })
}

func (r *record) setXattr(name string, value []byte) {
	r.Xattrs = slices.DeleteFunc(r.Xattrs, func(x tarstream.Xattr) bool { return x.Name == name })
	r.Xattrs = append(r.Xattrs, tarstream.Xattr{Name: name, Value: value})
}

// Recall is for [overlay.Flat].
func (m *Memory) Recall(id overlay.FileID) (overlay.Remembered, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.find(id)
	if r == nil {
		return overlay.Remembered{}, false
	}
	out := r.Remembered
	out.Xattrs = slices.Clone(r.Xattrs)
	return out, true
}

// A line is a record in a stream.
type line struct {
	Ino          uint64            `json:"i"`
	BirthSec     int64             `json:"b,omitempty"`
	BirthNsec    uint32            `json:"n,omitempty"`
	Handle       []byte            `json:"h,omitempty"`
	UID          *uint32           `json:"u,omitempty"`
	GID          *uint32           `json:"g,omitempty"`
	Device       byte              `json:"d,omitempty"`
	Major, Minor uint32            `json:",omitempty"`
	Xattrs       map[string][]byte `json:"x,omitempty"`
}

// Write writes what is remembered, for [Read] in another process.
func (m *Memory) Write(w io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for f, r := range m.files {
		l := line{
			Ino: f.ino, BirthSec: f.birthSec, BirthNsec: f.birthNsec, Handle: []byte(r.handle),
			UID: r.UID, GID: r.GID, Device: r.Device, Major: r.Major, Minor: r.Minor,
		}
		for _, x := range r.Xattrs {
			if l.Xattrs == nil {
				l.Xattrs = map[string][]byte{}
			}
			l.Xattrs[x.Name] = x.Value
		}
		if err := enc.Encode(l); err != nil {
			return fmt.Errorf("write what was asked for: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write what was asked for: %w", err)
	}
	return nil
}

// Read reads what [Memory.Write] wrote.
func Read(r io.Reader) (*Memory, error) {
	m := newMemory()
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what was asked for: %w", err)
		}
		rec := &record{handle: string(l.Handle)}
		rec.UID, rec.GID, rec.Device, rec.Major, rec.Minor = l.UID, l.GID, l.Device, l.Major, l.Minor
		for name, value := range l.Xattrs {
			rec.setXattr(name, value)
		}
		slices.SortFunc(rec.Xattrs, func(a, b tarstream.Xattr) int { return strings.Compare(a.Name, b.Name) })
		m.files[inode{l.Ino, l.BirthSec, l.BirthNsec}] = rec
	}
}
