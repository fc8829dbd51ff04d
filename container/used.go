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
		return unix.UtimesNanoAt(dir, RecordFile, nil, 0)
	}))
}

// LastUsed returns when a container was used last, within an hour, or made. It
// is the time of its record's file.
func (s *Store) LastUsed(id ID) (time.Time, error) {
	p, err := s.locate(id)
	if err != nil {
		return time.Time{}, err
	}
	at, err := s.usedAt(p)
	if err != nil {
		return time.Time{}, notFound(id, err)
	}
	return at, nil
}
