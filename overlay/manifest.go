package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// A stamp is what tells whether an entry is as it was: which inode it has, and when
// that last changed. Every change of an inode sets its ctime to the time of the
// clock, and nothing else does. The zero stamp stands for an entry that could not
// be made.
type stamp struct {
	ino   uint64
	ctime int64 // nanoseconds since the epoch
}

func stampOf(st *unix.Statx_t) stamp {
	return stamp{ino: st.Ino, ctime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)}
}

// A Manifest has the stamps of a tree that was made from an index, as it was then
// or when it was last set right. It knows no names: they are those of the index.
type Manifest struct {
	root stamp
	dirs map[erofs.NID][]stamp // of the entries of a directory, in the index's order
}

func newManifest() *Manifest { return &Manifest{dirs: map[erofs.NID][]stamp{}} }

// manifestFormat begins an encoded manifest. It is read by the program that wrote it,
// or by one of another version: the last byte counts up.
const manifestFormat = "stamps\x00\x01"

// errManifest is wrapped by errors about an encoded manifest.
var errManifest = errors.New("damaged manifest")

// Encode gives the manifest as bytes: the format's name, the root's stamp, and each
// directory's number in the index, number of entries, and stamps. All numbers are
// 64 bits wide, little endian.
func (m *Manifest) Encode() []byte {
	n := len(manifestFormat) + 16
	for _, stamps := range m.dirs {
		n += 16 * (1 + len(stamps))
	}
	b := append(make([]byte, 0, n), manifestFormat...)
	put := func(x, y uint64) {
		b = binary.LittleEndian.AppendUint64(b, x)
		b = binary.LittleEndian.AppendUint64(b, y)
	}
	put(m.root.ino, uint64(m.root.ctime))
	for nid, stamps := range m.dirs {
		put(uint64(nid), uint64(len(stamps)))
		for _, s := range stamps {
			put(s.ino, uint64(s.ctime))
		}
	}
	return b
}

// DecodeManifest reads what Encode gave.
func DecodeManifest(b []byte) (*Manifest, error) {
	if len(b) < len(manifestFormat)+16 || string(b[:len(manifestFormat)]) != manifestFormat || len(b)%16 != len(manifestFormat) {
		return nil, fmt.Errorf("%w: %d bytes", errManifest, len(b))
	}
	b = b[len(manifestFormat):]
	take := func() (x, y uint64) {
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
		return x, y
	}
	all := make([]stamp, 0, len(b)/16)
	m := newManifest()
	ino, ctime := take()
	m.root = stamp{ino, int64(ctime)}
	for len(b) > 0 {
		nid, n := take()
		if n > uint64(len(b)/16) {
			return nil, fmt.Errorf("%w: %d entries in %d bytes", errManifest, n, len(b))
		}
		from := len(all)
		for range n {
			ino, ctime := take()
			all = append(all, stamp{ino, int64(ctime)})
		}
		m.dirs[erofs.NID(nid)] = all[from:len(all):len(all)]
	}
	return m, nil
}

// latest is the time of the last change that the manifest knows of.
func (m *Manifest) latest() int64 {
	last := m.root.ctime
	for _, stamps := range m.dirs {
		for _, s := range stamps {
			last = max(last, s.ctime)
		}
	}
	return last
}
