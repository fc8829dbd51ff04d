package container

import (
	"os"
	"slices"
	"testing"
	"time"
)

// setUsed says when a container was used last.
func setUsed(t *testing.T, s *Store, id ID, ago time.Duration) {
	t.Helper()
	p, err := s.locate(id)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-ago).Truncate(time.Second)
	if err := os.Chtimes(s.path(treeDir)+"/"+p.file(RecordFile), at, at); err != nil {
		t.Fatal(err)
	}
}

func listIDs(t *testing.T, s *Store) []ID {
	t.Helper()
	records, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return idsOf(records)
}

func idsOf(records []Record) []ID {
	var ids []ID
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestShrink(t *testing.T) {
	// Each container, its parent, and hours since it was used.
	type made struct {
		parent ID
		ago    time.Duration
	}
	for _, c := range []struct {
		name string
		made []made // from id 1 on
		want []ID   // that go
	}{
		{"nothing", nil, nil},
		{"one", []made{{0, 1}}, []ID{1}},
		{"the older half", []made{{0, 4}, {0, 1}, {0, 3}, {0, 2}}, []ID{1, 3}},
		{"the larger half", []made{{0, 2}, {0, 1}, {0, 3}}, []ID{1, 3}},
		{"who stands on it uses it", []made{{0, 9}, {1, 1}, {0, 2}, {0, 3}}, []ID{3, 4}},
		{"from the top", []made{{0, 5}, {1, 5}, {2, 5}, {3, 5}}, []ID{3, 4}},
		{"a branch", []made{{0, 9}, {1, 8}, {2, 7}, {1, 1}, {4, 2}, {0, 6}}, []ID{2, 3, 6}},
		{"of the same time the older", []made{{0, 5}, {0, 5}, {0, 5}, {0, 5}}, []ID{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			kept := []ID{}
			for i, m := range c.made {
				id := create(t, s, m.parent, c.name+string(rune('a'+i)), "key"+string(rune('a'+i))).ID
				if !slices.Contains(c.want, id) {
					kept = append(kept, id)
				}
			}
			for i, m := range c.made {
				setUsed(t, s, ID(i+1), m.ago*time.Hour)
			}
			could, err := s.Shrinkable(t.Context())
			if err != nil || !slices.Equal(could, c.want) {
				t.Errorf("could remove %v, %v, want %v", could, err, c.want)
			}
			if got := listIDs(t, s); len(got) != len(c.made) {
				t.Fatalf("looking has removed something: %v", got)
			}
			removed, freed, err := s.Shrink(t.Context())
			if err != nil || !slices.Equal(removed, c.want) || freed == 0 && len(c.want) > 0 {
				t.Errorf("removed %v, %d bytes, %v, want %v", removed, freed, err, c.want)
			}
			if got := listIDs(t, s); !slices.Equal(got, kept) {
				t.Errorf("there are %v, want %v", got, kept)
			}
			for i := range c.made {
				_, ok, err := s.Lookup("key" + string(rune('a'+i)))
				if want := slices.Contains(kept, ID(i+1)); ok != want || err != nil {
					t.Errorf("key of %d: %v, %v, want %v", i+1, ok, err, want)
				}
			}
		})
	}
}

// A container without a record can be no reason to keep all the others.
func TestShrinkDamaged(t *testing.T) {
	s := newStore(t)
	for _, content := range []string{"a", "b", "c", "d"} {
		create(t, s, 0, content)
	}
	p, err := s.locate(3)
	if err == nil {
		err = os.Remove(s.path(treeDir) + "/" + p.file(RecordFile))
	}
	if err != nil {
		t.Fatal(err)
	}
	removed, _, err := s.Shrink(t.Context())
	if err != nil || !slices.Equal(removed, []ID{1, 3}) {
		t.Errorf("removed %v, %v", removed, err)
	}
}
