package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ihucos/plash/cas"
	"golang.org/x/sys/unix"
)

// CreateOptions are what a new container has besides its layer.
type CreateOptions struct {
	Origin Origin
	Config json.RawMessage // OCI image config; nil for none
	Keys   []string        // cache keys that shall stand for it
	// Attached are files that are kept beside its record, by their names, see
	// [Store.Attached].
	Attached map[string][]byte
}

// Create publishes a layer and makes a container of it on parent, durably. The
// error wraps [ErrNotFound] if the parent is not there, or no more. The caller
// still closes layer.
func (s *Store) Create(ctx context.Context, parent ID, layer *cas.Staged, o CreateOptions) (Record, error) {
	if o.Config != nil && !json.Valid(o.Config) {
		return Record{}, errors.New("create container: image config is not valid JSON")
	}
	unlock, err := s.cas.LockShared(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("create container: %w", err)
	}
	defer unlock()
	below, err := s.Get(parent)
	if err != nil {
		return Record{}, fmt.Errorf("create container: %w", err)
	}
	if err := layer.Publish(); err != nil {
		return Record{}, fmt.Errorf("create container: %w", err)
	}
	r := Record{
		Parent: parent, Layer: layer.Digest(), Chain: cas.NextChainID(below.Chain, layer.Digest()),
		Depth: below.Depth + 1, Size: layer.Size(), Created: time.Now().UTC(),
		Origin: o.Origin, Config: o.Config,
	}
	if err := s.record(ctx, &r, o); err != nil {
		return Record{}, fmt.Errorf("create container: %w", err)
	}
	return r, nil
}

// Restore puts the blob of a layer that a container has back into the store, if it
// is missing or has another size than it must have. The caller still closes layer.
func (s *Store) Restore(ctx context.Context, layer *cas.Staged) error {
	unlock, err := s.cas.LockShared(ctx)
	if err != nil {
		return fmt.Errorf("restore layer: %w", err)
	}
	defer unlock()
	if err := layer.Publish(); err != nil {
		return fmt.Errorf("restore layer: %w", err)
	}
	return nil
}

// record gives r an id and makes its container. The caller holds the shared lock.
func (s *Store) record(ctx context.Context, r *Record, o CreateOptions) (err error) {
	above := place("0")
	if r.Parent != 0 {
		if above, err = s.locate(r.Parent); err != nil {
			return err
		}
	}
	scratch, err := s.cas.Scratch("create")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()

	id, next, err := s.allocate(ctx)
	if err != nil {
		return err
	}
	r.ID = id
	w := &batch{open: []*os.File{next}}
	defer w.close()
	// Everything is written before anything is synced: the first sync then
	// brings most of it to the disk, and the others find little to do.
	w.write(s.idFile(id), []byte(above.file(id.String())+"\n"))
	defer func() {
		if err != nil {
			os.Remove(s.idFile(id)) // what stays is swept later
		}
	}()
	dir := filepath.Join(scratch.Path(), id.String())
	if err := s.writeRecord(w, *r, dir); err != nil {
		return err
	}
	for name, content := range o.Attached {
		if !attachable(name) {
			return fmt.Errorf("attach %q: not a name for it", name)
		}
		w.write(filepath.Join(dir, name), content)
	}
	w.dir(s.path(idsDir))
	if err := w.sync(); err != nil {
		return err
	}
	// The keys point to nothing until the container appears, so once it is there
	// it is found. They are not synced: a power cut costs a layer built again.
	for _, key := range o.Keys {
		tmp := filepath.Join(scratch.Path(), "key")
		if err := os.WriteFile(tmp, keyFile{id, key}.encode(), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, s.path(keyPath(cacheDir, key))); err != nil {
			return err
		}
	}
	return publish(s.path(treeDir), dir, above, id)
}

// writeRecord makes the directory of a new container at dir.
func (s *Store) writeRecord(w *batch, r Record, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	b, err := encodeRecord(r)
	if err != nil {
		return err
	}
	w.write(filepath.Join(dir, RecordFile), b)
	if r.Depth%stretch == 0 {
		chain, err := s.Chain(r.Parent)
		if err != nil {
			return err
		}
		sc := storedChain{Version: recordVersion}
		for _, a := range chain[len(chain)-(stretch-1):] {
			sc.Records = append(sc.Records, a.stored())
		}
		sc.Records = append(sc.Records, r.stored())
		if b, err = json.Marshal(sc); err != nil {
			return fmt.Errorf("encode chain: %w", err)
		}
		w.write(filepath.Join(dir, chainFile), append(b, '\n'))
	}
	w.dir(dir)
	return nil
}

// publish moves the finished directory dir to its place below above.
func publish(root, dir string, above place, id ID) error {
	parent, err := openDir(unix.AT_FDCWD, root+"/"+string(above))
	if err == nil {
		err = publishIn(parent, dir, id)
		err = errors.Join(err, parent.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("container %s: %w", above.base(), ErrNotFound)
	}
	return err
}

func publishIn(parent *os.File, dir string, id ID) error {
	if err := unix.Renameat(unix.AT_FDCWD, dir, int(parent.Fd()), id.String()); err != nil {
		return &os.LinkError{Op: "rename", Old: dir, New: id.String(), Err: err}
	}
	if err := syncFile(parent); err != nil {
		// It may not last, so it must not be seen.
		return errors.Join(err, unix.Renameat(int(parent.Fd()), id.String(), unix.AT_FDCWD, dir))
	}
	return nil
}
