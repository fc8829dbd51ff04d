package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A damagedStore has containers 1 to 3 on one another, a merged index of them, 4 and 5 of their own,
// on 5 a long chain, and a name for 3.
type damagedStore struct {
	*testing.T
	s       *Store
	layers  []digest.Digest // of 1 to 5
	tail    []Record        // of the chain on 5
	chained string          // the merged index
}

func newDamagedStore(t *testing.T) *damagedStore {
	d := &damagedStore{T: t, s: newStore(t)}
	for i, parent := range []ID{0, 1, 2, 0, 0} {
		d.layers = append(d.layers, create(t, d.s, parent, fmt.Sprint("content ", i)).Layer)
	}
	parent := ID(5)
	for i := range stretch {
		r := create(t, d.s, parent, fmt.Sprint("chain ", i%3))
		d.tail, parent = append(d.tail, r), r.ID
	}
	if err := d.s.SetName("mine", 3); err != nil {
		t.Fatal(err)
	}
	ix, err := d.s.cas.Merged(t.Context(), d.layers[:3])
	if err == nil {
		d.chained = ix.Path()
		err = ix.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// file is a file of a container.
func (d *damagedStore) file(id ID, name string) string {
	d.Helper()
	p, err := d.s.locate(id)
	if err != nil {
		d.Fatal(err)
	}
	return d.s.path(treeDir) + "/" + p.file(name)
}

func (d *damagedStore) index(n int) string {
	return d.s.path("index/sha256", d.layers[n-1].Encoded()+".erofs")
}

// change does something to a file's content.
func (d *damagedStore) change(path string, how func([]byte) []byte) {
	d.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.Chmod(path, 0o644)
	}
	if err == nil {
		err = os.WriteFile(path, how(b), 0o644)
	}
	if err != nil {
		d.Fatal(err)
	}
}

func (d *damagedStore) remove(path string) {
	d.Helper()
	if err := os.Remove(path); err != nil {
		d.Fatal(err)
	}
}

func flip(b []byte) []byte { b[len(b)/2] ^= 1; return b }

func (d *damagedStore) check(repair bool) *Checked {
	d.Helper()
	found, err := d.s.Check(d.Context(), CheckOptions{Repair: repair})
	if err != nil {
		d.Fatal(err)
	}
	return found
}

// content is all files of the store that are not locks or scratch, and what they hold.
func (d *damagedStore) content() string {
	d.Helper()
	var all strings.Builder
	err := filepath.WalkDir(d.s.dir, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(d.s.dir, path)
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(rel, "lock") || strings.HasPrefix(rel, "scratch") {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %s\n", rel, digest.FromBytes(b))
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
	return all.String()
}

func TestCheck(t *testing.T) {
	last := func(d *damagedStore) ID { return d.tail[len(d.tail)-1].ID }
	for _, c := range []struct {
		name   string
		damage func(d *damagedStore)
		want   []string // what is said, in this order
		done   []string // and done
		gone   []ID     // what a repair puts aside, besides the blobs that only it needs
	}{
		{"nothing", func(*damagedStore) {}, nil, nil, nil},
		{
			"blob", func(d *damagedStore) { d.change(d.s.cas.BlobPath(d.layers[3]), flip) },
			[]string{"digest mismatch"},
			[]string{"put aside", "put aside"},
			[]ID{4},
		},
		{
			"blob of a parent", func(d *damagedStore) { d.change(d.s.cas.BlobPath(d.layers[1]), flip) },
			[]string{"digest mismatch"},
			[]string{"put aside", "put aside with 1 that stand on it"},
			[]ID{2, 3},
		},
		{
			"cut blob", func(d *damagedStore) {
				d.change(d.s.cas.BlobPath(d.layers[3]), func(b []byte) []byte { return b[:512] })
			},
			[]string{"digest mismatch", "container 4: damaged record: its layer"},
			[]string{"put aside", "put aside"},
			[]ID{4},
		},
		{
			"lost blob", func(d *damagedStore) { d.remove(d.s.cas.BlobPath(d.layers[3])) },
			[]string{"container 4: its layer sha256:"},
			[]string{"put aside"},
			[]ID{4},
		},
		{
			"index", func(d *damagedStore) { d.change(d.index(4), flip) },
			[]string{"index of layer sha256:"},
			[]string{"built again"},
			nil,
		},
		{"lost index", func(d *damagedStore) { d.remove(d.index(2)) }, nil, nil, nil},
		{
			"merged index", func(d *damagedStore) { d.change(d.chained, flip) },
			[]string{"merged index of 3 layers"},
			[]string{"built again"},
			nil,
		},
		{
			"both indexes", func(d *damagedStore) {
				d.change(d.chained, flip)
				d.change(d.index(2), func([]byte) []byte { return nil })
			},
			[]string{"index of layer"},
			[]string{"built again", "built again"},
			nil,
		},
		{
			"record", func(d *damagedStore) { d.change(d.file(2, RecordFile), func(b []byte) []byte { return b[1:] }) },
			[]string{"container 2: damaged record"},
			[]string{"put aside with 1 that stand on it"},
			[]ID{2, 3},
		},
		{
			"lost record", func(d *damagedStore) { d.remove(d.file(4, RecordFile)) },
			[]string{"container 4: record.json: no such file"},
			[]string{"put aside"},
			[]ID{4},
		},
		{
			"other chain", func(d *damagedStore) {
				d.change(d.file(3, RecordFile), func(b []byte) []byte {
					return bytes.ReplaceAll(b, []byte(`"chain":"sha256:`), []byte(`"chain":"sha256:00`))[:len(b)]
				})
			},
			[]string{"container 3: damaged record"},
			[]string{"put aside"},
			[]ID{3},
		},
		{
			"record with a copy", func(d *damagedStore) { d.change(d.file(d.tail[7].ID, RecordFile), func([]byte) []byte { return nil }) },
			[]string{"damaged record"},
			[]string{"restored from a copy"},
			nil,
		},
		{
			"record behind the copies", func(d *damagedStore) { d.remove(d.file(last(d), RecordFile)) },
			[]string{"container 37: record.json: no such file"},
			[]string{"put aside"},
			[]ID{37},
		},
		{
			"copies", func(d *damagedStore) { d.change(d.file(d.tail[30].ID, chainFile), flip) },
			[]string{"container 36: chain.json"},
			[]string{"written again"},
			nil,
		},
		{
			"lost copies", func(d *damagedStore) { d.remove(d.file(d.tail[30].ID, chainFile)) },
			[]string{"container 36: chain.json"},
			[]string{"written again"},
			nil,
		},
		{
			"place", func(d *damagedStore) { d.remove(d.s.idFile(2)) },
			[]string{"container 2 cannot be found by its id"},
			[]string{"written again"},
			nil,
		},
		{
			"other place", func(d *damagedStore) { d.change(d.s.idFile(3), func([]byte) []byte { return []byte("0/1/3\n") }) },
			[]string{"container 3 cannot be found by its id"},
			[]string{"written again"},
			nil,
		},
		{
			"name", func(d *damagedStore) {
				d.change(d.s.path(keyPath(namesDir, "mine")), func([]byte) []byte { return []byte("3\nother") })
			},
			[]string{"name in names/"},
			[]string{"put aside"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDamagedStore(t)
			before := d.content()
			list := listIDs(t, d.s)
			c.damage(d)
			damaged := d.content()

			found := d.check(false)
			if len(found.Damages) != len(c.want) || found.Left() != len(c.want) || found.Aside != "" {
				t.Errorf("found %v, want %q", found.Damages, c.want)
			}
			for i, d := range found.Damages {
				if i < len(c.want) && (!strings.Contains(d.Err.Error(), c.want[i]) || strings.Contains(d.Err.Error(), "\n")) {
					t.Errorf("found %q, want %q", d.Err, c.want[i])
				}
			}
			// It only looks. An index that is lost may be built.
			if d.content() != damaged && c.name != "lost index" {
				t.Errorf("looking has changed something:\n%s\n%s", damaged, d.content())
			}

			found = d.check(true)
			var done []string
			for _, d := range found.Damages {
				done = append(done, d.Done)
			}
			if !slices.Equal(done, c.done) || found.Left() != 0 || (found.Aside != "") != slices.ContainsFunc(c.done, func(d string) bool { return strings.HasPrefix(d, doneAside) }) {
				t.Errorf("done %q, want %q; aside %s", done, c.done, found.Aside)
			}
			list = slices.DeleteFunc(list, func(id ID) bool { return slices.Contains(c.gone, id) })
			if got := listIDs(t, d.s); !slices.Equal(got, list) {
				t.Errorf("containers %v, want %v", got, list)
			}
			if again := d.check(true); len(again.Damages) != 0 {
				t.Errorf("after the repair: %v", again.Damages)
			}
			if found.Aside == "" && d.content() != before {
				t.Errorf("was\n%s\nis\n%s", before, d.content())
			}
			d.aside(found.Aside, c.gone, c.name == "lost blob")
		})
	}
}

// aside looks whether all of what was put aside is there.
func (d *damagedStore) aside(dir string, gone []ID, lost bool) {
	d.Helper()
	for _, id := range gone {
		if _, err := os.Stat(filepath.Join(dir, treeDir, id.String())); err != nil {
			d.Error(err)
		}
	}
	if _, err := d.s.Collect(d.Context()); err != nil {
		d.Fatal(err)
	}
	// Nothing of it is lost by a collection.
	for i, l := range d.layers {
		if !slices.Contains(gone, ID(i+1)) {
			if _, err := os.Stat(d.s.cas.BlobPath(l)); err != nil {
				d.Error(err)
			}
			continue
		}
		_, lostErr := os.Stat(filepath.Join(dir, "blobs/sha256", l.Encoded()))
		if lostErr != nil && !lost {
			d.Errorf("layer of %d: %v", i+1, lostErr)
		}
	}
	if dir == "" {
		return
	}
	text, err := os.ReadFile(filepath.Join(dir, "damage.txt"))
	if err != nil || !bytes.Contains(text, []byte("put aside")) || slices.Contains(gone, 3) != bytes.Contains(text, []byte(`the name "mine" stood for container 3`)) {
		d.Errorf("%v: %s", err, text)
	}
	if err := d.s.Purge(d.Context()); err != nil {
		d.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		d.Errorf("after a purge: %v", err)
	}
}
