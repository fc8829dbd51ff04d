package union

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// dirCache holds directories of the upper directory open, the last used ones: there
// may be only 1,024 descriptors.
type dirCache struct {
	mu   sync.Mutex
	max  int
	open map[*node]*dirEnt
	idle list.List // of *dirEnt that nobody uses now, the last used first
}

type dirEnt struct {
	n    *node
	fd   int
	uses int
	elem *list.Element
	out  bool // no longer in the cache: closed by who uses it last
}

func (c *dirCache) init() {
	c.open = map[*node]*dirEnt{}
	c.max = 128
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		c.max = int(min(max(lim.Cur/8, 16), 1024))
	}
}

func (c *dirCache) get(n *node) *dirEnt {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.open[n]
	if d != nil {
		c.use(d)
	}
	return d
}

func (c *dirCache) use(d *dirEnt) {
	if d.uses++; d.elem != nil {
		c.idle.Remove(d.elem)
		d.elem = nil
	}
}

// add takes fd over.
func (c *dirCache) add(n *node, fd int) *dirEnt {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.open[n]
	if d != nil {
		unix.Close(fd)
	} else {
		d = &dirEnt{n: n, fd: fd}
		c.open[n] = d
	}
	c.use(d)
	for len(c.open) > c.max && c.idle.Len() > 0 {
		c.remove(c.idle.Back().Value.(*dirEnt))
	}
	return d
}

func (c *dirCache) remove(d *dirEnt) {
	delete(c.open, d.n)
	d.out = true
	if d.elem != nil {
		c.idle.Remove(d.elem)
		d.elem = nil
	}
	if d.uses == 0 {
		unix.Close(d.fd)
	}
}

func (c *dirCache) put(d *dirEnt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.uses--; d.uses > 0 {
		return
	}
	if d.out {
		unix.Close(d.fd)
		return
	}
	d.elem = c.idle.PushFront(d)
}

func (c *dirCache) forget(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.open[n]; d != nil {
		c.remove(d)
	}
}

// shrink closes all that are not in use, for who needs descriptors.
func (c *dirCache) shrink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.idle.Len() > 0 {
		c.remove(c.idle.Back().Value.(*dirEnt))
	}
}

func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.open {
		c.remove(d)
	}
}

// dirfd gives an O_PATH descriptor of a directory, to be put back.
func (u *FS) dirfd(n *node) (*dirEnt, error) {
	if d := u.dirs.get(n); d != nil {
		return d, nil
	}
	p, err := u.place(n)
	if err != nil {
		return nil, err
	}
	defer p.done(u)
	var fd int
	if p.name == "" {
		fd, err = unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		fd, err = unix.Openat(p.fd, p.name, openPath|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, err
	}
	return u.dirs.add(n, fd), nil
}
