package union

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A node goes when the kernel has forgotten its file, which is when as many lookups were
// forgotten as were answered. For a file that the kernel knew while it was only in the layers
// nobody has counted all of them. But the kernel can be asked whether it knows a number:
// that is what it answers to a notice that attributes have changed.
//
// The file is found again by its name, and what it is a copy of by an attribute
// (readOrigin), so it keeps its number. Nobody asks shortly after an answer with that number,
// which may still be under way. If it is so all the same, requests for the number are ESTALE,
// upon which the kernel looks the name up once more: it must not be taken for the file of the
// layers.

// underWay is how long an answer is taken to be under way.
const underWay = 200 * time.Millisecond

// Forget is called when the kernel no longer knows a file.
func (u *FS) Forget(id, lookups uint64) {
	n := u.unused(id, lookups)
	if n == nil {
		return
	}
	u.tab.Lock()
	pinned := n.pinned
	if pinned {
		// Nobody else may be reading requests now, and the kernel may not answer before
		// some are.
		u.later(n)
	}
	u.tab.Unlock()
	if !pinned {
		u.forget(n)
	}
}

// unused counts lookups down, and gives the node if it may go.
func (u *FS) unused(id, lookups uint64) *node {
	u.tab.Lock()
	defer u.tab.Unlock()
	n := u.byID[id]
	if n == nil {
		delete(u.lowerGone, id)
		return nil
	}
	if n.lookups -= int64(lookups); n.lookups > 0 || n.stays && !n.gone || n.kids > 0 && !n.pinned {
		return nil
	}
	return n
}

func (u *FS) forget(n *node) {
	u.tab.Lock()
	if u.closed {
		u.tab.Unlock()
		return
	}
	pinned, lookups := n.pinned, n.lookups
	wait := pinned && time.Since(n.told) < underWay
	if wait {
		u.later(n)
	}
	u.tab.Unlock()
	if wait {
		return
	}
	// No lock is held: the kernel may wait until it has written out what it has of a file.
	if pinned && u.server.InodeNotify(n.id, -1, 0) != fuse.ENOENT {
		return
	}
	// Nobody may be about to tell the kernel of the file anew when the node goes.
	u.mu.Lock()
	defer u.mu.Unlock()
	n.io.Lock()
	defer n.io.Unlock()
	u.tab.Lock()
	defer u.tab.Unlock()
	switch {
	case u.closed:
		return
	case !pinned:
	case n.lookups != lookups || n.lookups > 0: // it was told of it meanwhile
		return
	case n.cached+n.passed > 0: // it does not wait until we have closed a file
		n.closing = true
		return
	default:
		n.pinned, n.lookups = false, 0
	}
	u.tidy(n)
}

// later has a node be looked at again. The caller holds tab.
func (u *FS) later(n *node) {
	if u.doubtful = append(u.doubtful, n); len(u.doubtful) == 1 {
		time.AfterFunc(underWay, func() {
			u.tab.Lock()
			nodes := u.doubtful
			u.doubtful = nil
			u.tab.Unlock()
			for _, n := range nodes {
				u.forget(n)
			}
		})
	}
}

// tidy takes a node out of the tables if nothing refers to it. The caller holds tab.
func (u *FS) tidy(n *node) {
	for n != nil && n.lookups <= 0 && n.kids == 0 && !n.pinned && u.byID[n.id] == n {
		delete(u.byID, n.id)
		if u.byIno[n.ino] == n {
			delete(u.byIno, n.ino)
		}
		if n.origin {
			u.left.add(n.id)
			u.origins.Store(true)
		}
		u.dirs.forget(n)
		u.drop(n)
		var up *node
		for _, a := range n.names {
			a.dir.kids--
			if up != nil {
				u.tidy(up)
			}
			up = a.dir
		}
		n.names = nil
		n = up
	}
}

// A numberSet is a set of numbers of which many lie close together.
type numberSet map[uint64]*[numberWords]uint64

const numberWords = 16

func (s numberSet) at(id uint64) (page uint64, word int, bit uint64) {
	return id / (numberWords * 64), int(id / 64 % numberWords), 1 << (id % 64)
}

func (s numberSet) has(id uint64) bool {
	page, word, bit := s.at(id)
	p := s[page]
	return p != nil && p[word]&bit != 0
}

func (s numberSet) add(id uint64) {
	page, word, bit := s.at(id)
	if s[page] == nil {
		s[page] = new([numberWords]uint64)
	}
	s[page][word] |= bit
}

func (s numberSet) remove(id uint64) {
	page, word, bit := s.at(id)
	if p := s[page]; p != nil {
		p[word] &^= bit
	}
}
