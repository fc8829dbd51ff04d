package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
)

// asideDir is where repairs put what is damaged and cannot be derived: a directory for each,
// with what was in the store under the names that it had there, containers beside
// one another, and a text that says what was wrong. Nobody reads it but people.
const asideDir = "quarantine"

// An aside is such a directory. It is made when something is put there.
type aside struct {
	store *Store
	dir   string
	lines []string // what is to be told there besides the damages
}

// put moves a file of the store there. Rel is its path below the store's directory.
func (a *aside) put(rel string) error {
	to, err := a.sub(filepath.Dir(rel))
	if err != nil {
		return err
	}
	return os.Rename(a.store.path(rel), filepath.Join(to, filepath.Base(rel)))
}

// sub makes a directory below the aside's.
func (a *aside) sub(rel string) (string, error) {
	if a.dir == "" {
		all := a.store.path(asideDir)
		if err := os.Mkdir(all, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		dir, err := os.MkdirTemp(all, time.Now().UTC().Format("20060102T150405Z-"))
		if err != nil {
			return "", err
		}
		a.dir = dir
	}
	dir := filepath.Join(a.dir, rel)
	return dir, os.MkdirAll(dir, 0o755)
}

func (a *aside) blob(d digest.Digest) error {
	rel, err := filepath.Rel(a.store.dir, a.store.cas.BlobPath(d))
	if err != nil {
		return err
	}
	return a.put(rel)
}

// containers moves containers there, with all that stand on them, and before that the blobs that no one
// needs then: else these would be freed.
func (a *aside) containers(places []place) error {
	if len(places) == 0 {
		return nil
	}
	if err := a.unneeded(places); err != nil {
		return err
	}
	names, err := a.store.Names()
	if err != nil {
		return err
	}
	dir, err := a.sub(treeDir)
	if err != nil {
		return err
	}
	gone, err := a.store.takeOut(places, dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if gone[n.ID] {
			a.lines = append(a.lines, fmt.Sprintf("the name %q stood for container %d", n.Name, n.ID))
		}
	}
	return nil
}

// unneeded moves the blobs there that are not needed without some containers.
func (a *aside) unneeded(without []place) error {
	needed, _, err := a.store.needed(without)
	if err != nil {
		return nil // there are records that cannot be read, and as long nothing is freed
	}
	blobs, err := a.store.cas.Blobs()
	if err != nil {
		return err
	}
	for _, d := range sorted(blobs) {
		if needed[d] {
			continue
		}
		if err := a.blob(d); err != nil {
			return err
		}
	}
	return nil
}

// close ends the work: what is there is durable.
func (a *aside) close(found *Checked) error {
	if a.dir == "" {
		return nil
	}
	found.Aside = a.dir
	var text strings.Builder
	for _, d := range found.Damages {
		fmt.Fprintln(&text, d)
	}
	for _, l := range a.lines {
		fmt.Fprintln(&text, l)
	}
	rel, err := filepath.Rel(a.store.dir, filepath.Join(a.dir, "damage.txt"))
	if err != nil {
		return err
	}
	if err := a.store.cas.WriteFile(rel, []byte(text.String())); err != nil {
		return err
	}
	return errors.Join(syncTree(a.dir), cas.SyncDir(a.store.path(asideDir)), cas.SyncDir(a.store.path("blobs/sha256")))
}

// syncTree syncs the directories that things were moved to.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = cas.SyncDir(path)
		}
		return err
	})
}
