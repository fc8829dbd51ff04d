package progress

import (
	"sync"
	"time"
)

// A Sum shows several downloads at once as one on a [Display]. Unlike those of other
// displays, its methods may be called by any number of goroutines.
type Sum struct {
	mu    sync.Mutex
	d     Display
	total int64
	done  int64
	begun bool
	parts int // that there are
	over  int // that are complete
}

// NewSum returns a sum of parts that are total bytes together, -1 where that is not known.
func NewSum(d Display, total int64) *Sum { return &Sum{d: d, total: total} }

// Part returns the display of one of the downloads.
func (s *Sum) Part() Display {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts++
	return &part{sum: s}
}

// Add counts bytes that need not be downloaded as done.
func (s *Sum) Add(n int64) { s.add(n) }

// Done ends the display as after work that needs no further step.
func (s *Sum) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		Done(s.d)
	}
	s.begun = false
}

// Close ends the display, in the middle if not all parts are complete. Some bytes of the
// total may have turned out not to be needed.
func (s *Sum) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.begun && s.over == s.parts:
		Done(s.d)
	case s.begun:
		s.d.Close()
	}
	s.begun = false
}

func (s *Sum) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	s.done += n
	s.d.Set(s.done)
}

// start begins the display with the first byte. The caller holds the lock.
func (s *Sum) start() {
	if !s.begun {
		s.begun = true
		s.d.Start(s.total)
	}
}

// part is the display of one download among several.
type part struct {
	sum  *Sum
	done int64
}

func (p *part) Start(int64) { p.sum.add(-p.done); p.done = 0 }

func (p *part) Set(done int64) {
	p.sum.add(done - p.done)
	p.done = done
}

func (p *part) Retry(why error, wait time.Duration) {
	p.sum.mu.Lock()
	defer p.sum.mu.Unlock()
	p.sum.d.Retry(why, wait)
}

// Complete completes the whole with its last part.
func (p *part) Complete() {
	s := p.sum
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over++
	if s.begun && s.over == s.parts && s.done == s.total {
		s.d.Complete()
		s.begun = false
	}
}

func (p *part) Close() {}

// Done ends the display of work that is complete with its last byte: as Complete, without a word of
// what comes next.
func Done(d Display) {
	if d, ok := d.(interface{ finish(next string) }); ok {
		d.finish("")
		return
	}
	d.Close()
}

// Serial returns a display that calls the methods of d one at a time.
func Serial(d Display) Display { return &serial{d: d} }

type serial struct {
	mu sync.Mutex
	d  Display
}

func (s *serial) do(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *serial) Start(total int64)                   { s.do(func() { s.d.Start(total) }) }
func (s *serial) Set(done int64)                      { s.do(func() { s.d.Set(done) }) }
func (s *serial) Retry(why error, wait time.Duration) { s.do(func() { s.d.Retry(why, wait) }) }
func (s *serial) Complete()                           { s.do(s.d.Complete) }
func (s *serial) Close()                              { s.do(s.d.Close) }
func (s *serial) finish(next string) {
	s.do(func() {
		if next == "" {
			Done(s.d)
		} else {
			s.d.Complete()
		}
	})
}
