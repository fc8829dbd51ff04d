package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// CheckOptions say what [Store.Check] does.
type CheckOptions struct {
	// Repair derives anew what can be derived, and puts the rest aside.
	Repair bool
	// Expect is told how many bytes will be read, and Count, by several goroutines, how many
	// more have been. Both may be nil.
	Expect, Count func(n int64)
}

// Checked is what [Store.Check] has found.
type Checked struct {
	Containers, Blobs, Indexes int // looked at
	Damages                    []Damage
	// Aside is the directory of what was put aside; "" if nothing was.
	Aside string
}

// A Damage is something in a store that is not as it must be.
type Damage struct {
	Err  error  // what it is, and what is wrong
	Done string // what was done about it; "" if nothing
}

func (d Damage) String() string {
	if d.Done == "" {
		return d.Err.Error()
	}
	return d.Err.Error() + ": " + d.Done
}

// Left reports how many damages are still there.
func (c *Checked) Left() int {
	n := 0
	for _, d := range c.Damages {
		if d.Done == "" {
			n++
		}
	}
	return n
}

// Check holds every blob against its digest, every index against its blobs, and every container
// against its parent, its layer and what leads to it. Others may use the store meanwhile: it is
// locked only to look at the containers, and to repair.
//
// A repair builds indexes again, and writes again what says where containers are. It restores
// records from the copies that chain.json files are, and puts aside ([Checked.Aside]) what cannot be derived: blobs
// that have another digest, containers whose layer or record is lost, with all that stand on
// them and the blobs that only they need. Nothing is deleted. An error is about the checking itself.
func (s *Store) Check(ctx context.Context, o CheckOptions) (_ *Checked, err error) {
	if o.Expect == nil {
		o.Expect = func(int64) {}
	}
	if o.Count == nil {
		o.Count = func(int64) {}
	}
	c := &checker{s: s, o: o}
	if err := c.check(ctx); err != nil {
		return nil, fmt.Errorf("check store: %w", err)
	}
	return &c.found, nil
}

type checker struct {
	s     *Store
	o     CheckOptions
	aside *aside

	mu    sync.Mutex
	found Checked
	blobs map[digest.Digest]error   // that are not what they must be
	index map[digest.Digest]error   // layers whose index is not
	merge map[digest.Digest]merging // by chain
}

// A merging is a stack of layers with a merged index.
type merging struct {
	layers []digest.Digest
	err    error // what is wrong with that
}

func (c *checker) check(ctx context.Context) (err error) {
	if err := c.checkBlobs(ctx); err != nil {
		return err
	}
	if err := c.checkIndexes(ctx); err != nil {
		return err
	}
	lock := c.s.cas.LockShared
	if c.o.Repair {
		lock = c.s.cas.LockExclusive
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c.aside = &aside{store: c.s}
	defer func() { err = errors.Join(err, c.aside.close(&c.found)) }()
	if err := c.settleBlobs(ctx); err != nil {
		return err
	}
	if err := c.settleIndexes(ctx); err != nil {
		return err
	}
	if err := c.checkNames(); err != nil {
		return err
	}
	return c.checkContainers()
}

// damage notes that something is wrong, and what was done about it.
func (c *checker) damage(err error, done string) {
	c.found.Damages = append(c.found.Damages, Damage{err, done})
}

func (c *checker) checkBlobs(ctx context.Context) error {
	blobs, err := c.s.cas.Blobs()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, size := range blobs {
		total += size
	}
	c.o.Expect(total)
	c.found.Blobs, c.blobs = len(blobs), map[digest.Digest]error{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(goruntime.GOMAXPROCS(0))
	for _, d := range sorted(blobs) {
		g.Go(func() error {
			err := c.s.cas.CheckBlob(ctx, d, c.o.Count)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil && !errors.Is(err, cas.ErrNotExist) { // else it is not needed any more
				c.mu.Lock()
				defer c.mu.Unlock()
				c.blobs[d] = err
			}
			return nil
		})
	}
	return g.Wait()
}

func sorted[V any](m map[digest.Digest]V) []digest.Digest { return slices.Sorted(maps.Keys(m)) }

// checkIndexes looks at the indexes whose blobs are good.
func (c *checker) checkIndexes(ctx context.Context) error {
	layers, chains, err := c.s.cas.Indexes()
	if err != nil {
		return err
	}
	c.index, c.merge = map[digest.Digest]error{}, map[digest.Digest]merging{}
	c.found.Indexes = len(layers) + len(chains)
	for _, l := range sorted(layers) {
		if c.blobs[l] != nil {
			continue
		}
		err := c.s.cas.CheckIndex(ctx, l)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, cas.ErrNotExist) {
			c.index[l] = err
		}
	}
	stacks, err := c.stacks(chains)
	if err != nil {
		return err
	}
	for _, chain := range sorted(stacks) {
		m := merging{layers: stacks[chain]}
		if slices.ContainsFunc(m.layers, func(l digest.Digest) bool { return c.blobs[l] != nil }) {
			continue
		}
		if !c.suspect(m.layers) {
			m.err = c.s.cas.CheckMerged(ctx, m.layers)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if m.err == nil || errors.Is(m.err, cas.ErrNotExist) {
				continue
			}
		}
		c.merge[chain] = m
	}
	return nil
}

// suspect tells whether the index of one of the layers is wrong.
func (c *checker) suspect(layers []digest.Digest) bool {
	return slices.ContainsFunc(layers, func(l digest.Digest) bool { return c.index[l] != nil })
}

// stacks gives the layers that chains stand for, as far as containers tell.
func (c *checker) stacks(chains map[digest.Digest]bool) (map[digest.Digest][]digest.Digest, error) {
	stacks := map[digest.Digest][]digest.Digest{}
	if none := cas.MergedID(nil); chains[none] {
		stacks[none] = nil
	}
	err := c.s.walk(func(p place) error {
		id, _ := parseID(p.base())
		r, err := c.s.Get(id)
		if err != nil || !chains[r.Chain] || stacks[r.Chain] != nil {
			return nil // what is wrong with it is found later
		}
		records, err := c.s.Chain(id)
		if err != nil {
			return nil
		}
		layers := make([]digest.Digest, len(records))
		for i, r := range records {
			layers[i] = r.Layer
		}
		if cas.ChainID(layers) == r.Chain {
			stacks[r.Chain] = layers
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) { // a container was removed meanwhile
		err = nil
	}
	return stacks, err
}

// settleBlobs deals with bad blobs. As all that follow, it has the store's lock.
func (c *checker) settleBlobs(ctx context.Context) error {
	for _, d := range sorted(c.blobs) {
		// It may not be needed any more, or have been imported anew.
		err := c.s.cas.CheckBlob(ctx, d, func(int64) {})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil, errors.Is(err, cas.ErrNotExist):
			continue
		}
		done := ""
		if c.o.Repair {
			if err := c.aside.blob(d); err != nil {
				return err
			}
			done = doneAside
		}
		c.damage(fmt.Errorf("blob %s: %w", d, err), done)
	}
	return nil
}

// settleIndexes deals with bad indexes.
func (c *checker) settleIndexes(ctx context.Context) error {
	for _, l := range sorted(c.index) {
		err := fmt.Errorf("index of layer %s: %w", l, c.index[l])
		if err := c.rebuild(ctx, err, func() error { return c.s.cas.RebuildIndex(ctx, l) }); err != nil {
			return err
		}
	}
	for _, chain := range sorted(c.merge) {
		m := c.merge[chain]
		if m.err == nil && c.o.Repair { // the indexes of its layers are good now
			m.err = c.s.cas.CheckMerged(ctx, m.layers)
		}
		if m.err == nil {
			continue
		}
		err := fmt.Errorf("merged index of %d layers, %s: %w", len(m.layers), chain, m.err)
		if err := c.rebuild(ctx, err, func() error { return c.s.cas.RebuildMerged(ctx, m.layers) }); err != nil {
			return err
		}
	}
	return nil
}

// rebuild notes a damage, and builds again what is damaged if that is wanted.
func (c *checker) rebuild(ctx context.Context, damage error, build func() error) error {
	if !c.o.Repair {
		c.damage(damage, "")
		return nil
	}
	err := build()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cas.ErrNotExist): // it is not needed any more
	case err != nil:
		c.damage(fmt.Errorf("%w: build it again: %w", damage, err), "")
	default:
		c.damage(damage, doneBuilt)
	}
	return nil
}

// checkNames looks at the files of names. Those of cache keys are not synced, and may be torn.
func (c *checker) checkNames() error {
	return c.s.eachKey(namesDir, func(rel string, k keyFile) error {
		if k.id != noID {
			return nil
		}
		done := ""
		if c.o.Repair {
			if err := c.aside.put(rel); err != nil {
				return err
			}
			done = doneAside
		}
		c.damage(fmt.Errorf("name in %s: %w: it is not that of a name", rel, ErrDamaged), done)
		return nil
	})
}

// What is done about damages.
const (
	doneBuilt   = "built again"
	doneWritten = "written again"
	doneAside   = "put aside"
)

// withBelow says how many others are as one.
func withBelow(done string, n int) string {
	if n == 0 || done == "" {
		return done
	}
	return done + fmt.Sprintf(" with %d that stand on it", n)
}

// standOn counts the places below one.
func standOn(places []place, p place) int {
	n := 0
	for _, q := range places {
		if strings.HasPrefix(string(q), string(p)+"/") {
			n++
		}
	}
	return n
}
