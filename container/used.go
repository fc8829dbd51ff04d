package container

import (
	"time"

	"golang.org/x/sys/unix"
)

// touchEvery is how exactly the last use of a container is known.
const touchEvery = time.Hour

// Touch notes that a container is being used. It writes at most once an hour.
func (s *Store) Touch(id ID) error {
	if id == 0 {
		return nil
	}
	last, err := s.LastUsed(id)
	if err != nil || time.Since(last) < touchEvery {
		return err
	}
	p, err := s.locate(id)
	if err != nil {
		return err
	}
	return notFound(id, s.withDir(p, unix.O_PATH, func(dir int) error {
		return unix.UtimesNanoAt(dir, recordFile, nil, 0)
	}))
}

// LastUsed returns when a container was used last, within an hour, or made. It
// is the time of its record's file.
func (s *Store) LastUsed(id ID) (time.Time, error) {
	p, err := s.locate(id)
	if err != nil {
		return time.Time{}, err
	}
	var st unix.Stat_t
	err = s.withDir(p, unix.O_PATH, func(dir int) error {
		return unix.Fstatat(dir, recordFile, &st, 0)
	})
	if err != nil {
		return time.Time{}, notFound(id, err)
	}
	return time.Unix(st.Mtim.Unix()), nil
}
