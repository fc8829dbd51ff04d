package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	pageSize    = 4096
	randomReads = 16000
	// randomThreads is how many threads read at once while the cache is cold, so
	// that the disk and the server have something to do in the meantime.
	randomThreads = 4
)

// randomPlan is what is read at random: pages of all regular files of a tree, each page as
// likely as any other.
type randomPlan struct {
	files []string // relative to the root
	reads []randomRead
}

type randomRead struct {
	file   int // in files
	offset int64
	size   int
}

// newRandomPlan draws from the files of a tree, which it sorts: the order of a directory
// is another one on every filesystem.
func newRandomPlan(dir string, count int, seed uint64) (randomPlan, error) {
	type file struct {
		path  string
		size  int64
		pages int64 // of all files up to this one
	}
	var all []file
	if _, err := walk(dir, func(path string, size int64) {
		all = append(all, file{path: strings.TrimPrefix(path, dir+"/"), size: size})
	}); err != nil {
		return randomPlan{}, err
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	var pages int64
	for i := range all {
		pages += (all[i].size + pageSize - 1) / pageSize
		all[i].pages = pages
	}
	if pages == 0 {
		return randomPlan{}, fmt.Errorf("no data in %s", dir)
	}
	var p randomPlan
	number := map[int]int{} // of a file: in all, in p.files
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range count {
		page := rnd.Int64N(pages)
		i := sort.Search(len(all), func(i int) bool { return all[i].pages > page })
		f := all[i]
		n, ok := number[i]
		if !ok {
			n = len(p.files)
			number[i] = n
			p.files = append(p.files, f.path)
		}
		first := f.pages - (f.size+pageSize-1)/pageSize
		offset := (page - first) * pageSize
		p.reads = append(p.reads, randomRead{n, offset, int(min(pageSize, f.size-offset))})
	}
	return p, nil
}

// openPlan is a plan whose files are open: what is measured is reading alone.
type openPlan struct {
	randomPlan
	fds []int
}

func (p randomPlan) open(dir string) (o *openPlan, err error) {
	o = &openPlan{randomPlan: p}
	for _, name := range p.files {
		fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), o.close())
		}
		o.fds = append(o.fds, fd)
	}
	return o, nil
}

func (o *openPlan) close() (err error) {
	for _, fd := range o.fds {
		err = errors.Join(err, unix.Close(fd))
	}
	o.fds = nil
	return err
}

// read does the plan's reads by so many threads.
func (o *openPlan) read(threads int) error {
	// A goroutine in a system call keeps its processor for a while: without one for
	// each, some would wait for others.
	defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(threads + 1))
	var g errgroup.Group
	for first := range threads {
		g.Go(func() error {
			buf := make([]byte, pageSize)
			for i := first; i < len(o.reads); i += threads {
				r := o.reads[i]
				n, err := unix.Pread(o.fds[r.file], buf[:r.size], r.offset)
				if err != nil {
					return fmt.Errorf("read %s at %d: %w", o.files[r.file], r.offset, err)
				}
				if n != r.size {
					return fmt.Errorf("read %s at %d: %d bytes, expected %d: %w", o.files[r.file], r.offset, n, r.size, os.ErrInvalid)
				}
			}
			return nil
		})
	}
	return g.Wait()
}
