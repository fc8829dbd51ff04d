package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ihucos/plash/cas"
)

// checkContainers looks at all containers, those below others first.
func (c *checker) checkContainers() error {
	t := &treeCheck{checker: c, records: map[place]Record{}, bad: map[place]bool{}}
	err := c.s.walk(func(p place) error {
		t.places = append(t.places, p)
		return nil
	})
	if err != nil {
		return err
	}
	c.found.Containers = len(t.places)
	for _, p := range t.places {
		if t.bad[p.parent()] {
			t.bad[p] = true // it goes where its parent goes
			continue
		}
		if err := t.container(p); err != nil {
			return err
		}
	}
	return c.aside.containers(t.lost)
}

type treeCheck struct {
	*checker
	places  []place
	records map[place]Record // that are good
	bad     map[place]bool   // what cannot be used
	lost    []place          // what is to be put aside
}

func (t *treeCheck) container(p place) error {
	r, err := t.record(p)
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, fs.ErrNotExist):
		if r, err = t.restore(p, err); err != nil {
			return t.lose(p, err)
		}
	case err != nil: // of a newer plash, or it cannot be read
		t.bad[p] = true
		t.damage(err, "")
		return nil
	}
	if err := t.layer(r); err != nil {
		return t.lose(p, err)
	}
	t.records[p] = r
	if err := t.idFile(p, r.ID); err != nil {
		return err
	}
	return t.chainFile(p)
}

// record reads the record at a place, and holds it against that of the parent.
func (t *treeCheck) record(p place) (Record, error) {
	b, err := t.s.readTree(p.file(RecordFile))
	if err != nil {
		return Record{}, fmt.Errorf("container %s: %s: %w", p.base(), RecordFile, cas.WithoutPath(err))
	}
	r, err := decodeRecord(b, p)
	if err == nil {
		err = t.fits(p, r)
	}
	return r, err
}

func (t *treeCheck) fits(p place, r Record) error {
	if want := cas.NextChainID(t.records[p.parent()].Chain, r.Layer); r.Chain != want {
		return fmt.Errorf("container %d: %w: expected chain %s, found %s", r.ID, ErrDamaged, want, r.Chain)
	}
	return nil
}

// restore takes a record from a copy of it, if there is a good one. The error is
// what was wrong, if there is none.
func (t *treeCheck) restore(p place, wrong error) (Record, error) {
	for _, q := range t.places {
		stop := p == q || len(q) > len(p) && q[:len(p)] == p && q[len(p)] == '/'
		if !stop || q.depth() != (p.depth()+stretch-1)/stretch*stretch {
			continue
		}
		b, err := t.s.readTree(q.file(chainFile))
		var sc storedChain
		if err != nil || json.Unmarshal(b, &sc) != nil || len(sc.Records) != stretch {
			continue
		}
		r, err := sc.Records[(p.depth()-1)%stretch].record(p)
		if err != nil || t.fits(p, r) != nil {
			continue
		}
		done := ""
		if t.o.Repair {
			if err := t.write(p, r); err != nil {
				return Record{}, err
			}
			done = "restored from a copy"
		}
		t.damage(wrong, done)
		return r, nil
	}
	return Record{}, wrong
}

func (t *treeCheck) write(p place, r Record) error {
	b, err := encodeRecord(r)
	if err != nil {
		return err
	}
	return t.s.writeIn(p, RecordFile, b, 0o644, true)
}

// lose deals with a container that cannot be used any more.
func (t *treeCheck) lose(p place, err error) error {
	t.bad[p] = true
	done := ""
	if t.o.Repair {
		t.lost = append(t.lost, p)
		done = doneAside
	}
	t.damage(err, withBelow(done, standOn(t.places, p)))
	return nil
}

// layer looks for the blob of a container's layer, whose content is looked at elsewhere.
func (t *treeCheck) layer(r Record) error {
	fi, err := os.Stat(t.s.cas.BlobPath(r.Layer))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("container %d: its layer %s is %w", r.ID, r.Layer, cas.ErrNotExist)
	case err != nil:
		return fmt.Errorf("container %d: look for its layer: %w", r.ID, err)
	case fi.Size() != r.Size:
		return fmt.Errorf("container %d: %w: its layer %s: expected %d bytes, found %d", r.ID, ErrDamaged, r.Layer, r.Size, fi.Size())
	}
	return nil
}

// idFile looks at the file that says where a container is.
func (t *treeCheck) idFile(p place, id ID) error {
	at, err := t.s.locate(id)
	if err == nil && at == p {
		return nil
	}
	if err == nil {
		if _, err := t.record(at); err == nil {
			return t.lose(p, fmt.Errorf("container %d: %w: another one has this id, at %s", id, ErrDamaged, at))
		}
		err = fmt.Errorf("container %d: %w: expected %s in ids/%d, found %s", id, ErrDamaged, p, id, at)
	}
	done := ""
	if t.o.Repair {
		if err := t.s.cas.WriteFile(idsDir+"/"+id.String(), []byte(string(p)+"\n")); err != nil {
			return err
		}
		done = doneWritten
	}
	t.damage(fmt.Errorf("container %d cannot be found by its id: %w", id, err), done)
	return nil
}

// chainFile looks at the copy of records that some containers have.
func (t *treeCheck) chainFile(p place) error {
	if p.depth()%stretch != 0 {
		return nil
	}
	below := p.below("0")
	sc := storedChain{Version: recordVersion}
	for _, q := range below[len(below)-stretch:] {
		sc.Records = append(sc.Records, t.records[q].stored())
	}
	want, err := json.Marshal(sc)
	if err != nil {
		return fmt.Errorf("encode chain: %w", err)
	}
	want = append(want, '\n')
	found, err := t.s.readTree(p.file(chainFile))
	if err == nil && bytes.Equal(found, want) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: it does not say what the records say", ErrDamaged)
	}
	err = cas.WithoutPath(err)
	done := ""
	if t.o.Repair {
		if err := t.s.writeIn(p, chainFile, want, 0o644, true); err != nil {
			return err
		}
		done = doneWritten
	}
	t.damage(fmt.Errorf("container %s: %s: %w", p.base(), chainFile, err), done)
	return nil
}
