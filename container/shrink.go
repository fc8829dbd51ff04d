package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Shrink removes the half of the containers that was used least recently, of an odd number the
// larger half, and the blobs that only they needed. It returns their ids, sorted, and how many
// bytes of disk it freed; also with an error that came after that.
//
// Who uses a container uses all that it stands on: of those that were used at the same time, the ones go
// first that stand highest. When something was used is known to the hour ([Store.Touch]).
func (s *Store) Shrink(ctx context.Context) (removed []ID, freed int64, err error) {
	freed, err = s.exclusively(ctx, func(bin string) error {
		places, err := s.leastUsed()
		if err != nil {
			return err
		}
		if _, err := s.takeOut(places, bin); err != nil {
			return err
		}
		removed = idsAt(places)
		return nil
	})
	if err != nil {
		return removed, freed, fmt.Errorf("shrink: %w", err)
	}
	return removed, freed, nil
}

// Shrinkable returns the ids of the containers that [Store.Shrink] would remove now, sorted.
func (s *Store) Shrinkable(ctx context.Context) ([]ID, error) {
	unlock, err := s.cas.LockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	places, err := s.leastUsed()
	if err != nil {
		return nil, fmt.Errorf("find the least recently used containers: %w", err)
	}
	return idsAt(places), nil
}

func idsAt(places []place) []ID {
	ids := make([]ID, 0, len(places))
	for _, p := range places {
		if id, ok := parseID(p.base()); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// leastUsed gives half of the containers. What stands on one of them is one of them.
func (s *Store) leastUsed() ([]place, error) {
	var places []place
	used := map[place]time.Time{}
	err := s.walk(func(p place) error {
		at, err := s.usedAt(p)
		if errors.Is(err, fs.ErrNotExist) {
			at, err = time.Time{}, nil // it has lost its record
		}
		places, used[p] = append(places, p), at
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Backward(places) { // parents come after what stands on them
		if up := p.parent(); up != "0" && used[up].Before(used[p]) {
			used[up] = used[p]
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(used[a].Compare(used[b]), -cmp.Compare(a.depth(), b.depth()), byID(a, b))
	})
	return places[:(len(places)+1)/2], nil
}

func byID(a, b place) int {
	x, _ := parseID(a.base())
	y, _ := parseID(b.base())
	return cmp.Compare(x, y)
}

// usedAt is when the container at a place was used last.
func (s *Store) usedAt(p place) (time.Time, error) {
	var st unix.Stat_t
	err := s.withDir(p, unix.O_PATH, func(dir int) error {
		return unix.Fstatat(dir, RecordFile, &st, 0)
	})
	return time.Unix(st.Mtim.Unix()), err
}
