package overlay

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// addLinked adds to the differences the other names of files with several names of
// which one is to be made: all of them are made anew, to be one file again.
func (r *restorer) addLinked() error {
	linked := map[erofs.NID]bool{}
	known := map[string]bool{}
	note := func(nid erofs.NID) error {
		in, err := r.t.ix.Inode(nid)
		if in.Nlink > 1 {
			linked[nid] = true
		}
		return err
	}
	for _, d := range r.s.diffs {
		if d.kind == added || d.kind == changed && d.dir {
			continue
		}
		known[d.path] = true
		var err error
		if d.dir {
			err = r.walk(scanJob{path: d.path, nid: d.nid}, nil, func(_ scanJob, e difference) error { return note(e.nid) })
		} else {
			err = note(d.nid)
		}
		if err != nil {
			return err
		}
	}
	if len(linked) == 0 {
		return nil
	}
	return r.walk(scanJob{spot: rootSpot, nid: r.t.ix.Root()}, known, func(in scanJob, e difference) error {
		if linked[e.nid] {
			r.s.note(in, e)
		}
		return nil
	})
}

// walk calls f for all files of a directory of the index and below, as if they had
// changed, but for what is at or below known paths.
func (r *restorer) walk(job scanJob, known map[string]bool, f func(in scanJob, e difference) error) error {
	in, err := r.t.ix.Inode(job.nid)
	if err != nil {
		return err
	}
	pos := -1
	var failed error
	err = r.t.ix.ReadDir(&in, func(e erofs.Dirent) bool {
		pos++
		d := difference{spot: spot{job.nid, pos}, kind: changed, path: join(job.path, string(e.Name)), nid: e.NID}
		switch {
		case known[d.path]:
		case e.Type == unix.DT_DIR:
			failed = r.walk(scanJob{spot: d.spot, path: d.path, nid: d.nid}, known, f)
		default:
			failed = f(job, d)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}
