package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ihucos/plash/cas"
)

// A Tree is the whole tree of a container in a directory, for programs to change: it
// can be set right again, and what was changed can be packed as a layer, by looking at
// each entry once and without reading files.
//
// What the host does not allow is left out: owners for who may not give files away,
// devices, attributes. In a plain user's tree he can get everywhere.
//
// Nobody may change the tree while a method is at work.
type Tree struct {
	store *cas.Store
	ix    *cas.Index
	root  *os.File
	m     *Manifest
	user  bool
	wary  bool
	meter Meter
}

// OpenTree gives the tree of an index that is in a directory, with the manifest that
// was made when it was last right; without one, all of it is still to be made. Both
// stay the caller's to close.
func OpenTree(s *cas.Store, ix *cas.Index, dir *os.File, m *Manifest) *Tree {
	if m == nil {
		m = newManifest()
	}
	return &Tree{store: s, ix: ix, root: dir, m: m, user: os.Geteuid() != 0}
}

// BeWary makes the tree read all files to find what was changed, for filesystems that
// do not tell ([TellsChanges]).
func (t *Tree) BeWary() { t.wary = true }

// SetMeter has a meter told how [Tree.Make] goes where there is no donor.
func (t *Tree) SetMeter(m Meter) { t.meter = m }

// Manifest is the current manifest of the tree.
func (t *Tree) Manifest() *Manifest { return t.m }

func (t *Tree) unpacker(ctx context.Context) *unpacker {
	u := newUnpacker(ctx, t.store, t.ix, int(t.root.Fd()))
	u.lenient, u.user = true, t.user
	return u
}

// A Donor is a tree of the same index that files may share their blocks with.
type Donor struct {
	Dir *os.File
	// Manifest is that of the tree; nil if it never changes.
	Manifest *Manifest
}

// Make makes the tree in its directory, which is empty. Donor may be nil.
func (t *Tree) Make(ctx context.Context, from *Donor) (err error) {
	if err := removeDefaultACL(int(t.root.Fd())); err != nil {
		return fmt.Errorf("copy tree to %s: %w", t.root.Name(), err)
	}
	u := t.unpacker(ctx)
	defer func() { err = errors.Join(err, u.blobs.close()) }()
	if from != nil {
		if u.donor, err = newDonor(int(from.Dir.Fd()), t.ix.Image, from.Manifest); err != nil {
			return fmt.Errorf("copy tree to %s: %w", t.root.Name(), err)
		}
	} else {
		u.tell(t.meter)
	}
	u.push(unpackJob{nid: t.ix.Root()})
	if err = u.run(u.worker); err == nil {
		_, err = t.trust(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("copy tree to %s: %w", t.root.Name(), err)
	}
	return nil
}

// trust takes all that has the right name and type for what the index has there, but
// for what lies at and below some paths, and makes a new manifest.
func (t *Tree) trust(ctx context.Context, doubtful []string) (*scanner, error) {
	t.m = newManifest()
	s := newScanner(ctx, int(t.root.Fd()), t.ix.Image, t.m)
	s.trust, s.doubtful = true, doubtful
	_, err := s.all()
	return s, err
}

// scan finds what is not as the manifest has it.
func (t *Tree) scan(ctx context.Context) (s *scanner, diffs []difference, err error) {
	s = newScanner(ctx, int(t.root.Fd()), t.ix.Image, t.m)
	if t.wary {
		blobs := newBlobFiles(t.store, t.ix)
		defer func() { err = errors.Join(err, blobs.close()) }()
		s.read = func() *comparer { return t.comparer(ctx, blobs) }
	}
	diffs, err = s.all()
	return s, diffs, err
}

// SetRight makes the tree what the index says, and tells whether anything had to be
// done, after which the manifest is another one. What is in the way is moved to the
// empty directory that bin gives, on the same filesystem, for the caller to delete.
//
// If there is an error the tree may be half right, and the manifest is worthless; the
// one of before still fits.
func (t *Tree) SetRight(ctx context.Context, bin func() (*os.File, error)) (changed bool, err error) {
	s, diffs, err := t.scan(ctx)
	if err == nil && len(diffs) > 0 {
		err = t.restore(ctx, s, bin)
	}
	if err != nil {
		return false, fmt.Errorf("set right tree %s: %w", t.root.Name(), err)
	}
	return len(diffs) > 0, nil
}

// Adopt takes the directory for the tree of its index, after the packed changes of
// another tree in it have become a layer of this one. Doubtful are the paths that were
// not packed: what lies at and below them is made anew. It is [Tree.SetRight] for the
// rest.
func (t *Tree) Adopt(ctx context.Context, doubtful []string, bin func() (*os.File, error)) error {
	s, err := t.trust(ctx, doubtful)
	if err == nil && len(s.diffs) > 0 {
		err = t.restore(ctx, s, bin)
	}
	if err != nil {
		return fmt.Errorf("set right tree %s: %w", t.root.Name(), err)
	}
	return nil
}

// Settle waits until the clock of the filesystem is past all changes that the manifest
// knows of, so that any later one gives another ctime: until then it may be counted in
// steps of some milliseconds (current_time in fs/inode.c of Linux; since 6.13 some
// filesystems look closer), on some filesystems of seconds. Probe is a file on
// the same filesystem.
func (t *Tree) Settle(ctx context.Context, probe *os.File) error {
	return waitPast(ctx, probe, t.m.latest())
}
