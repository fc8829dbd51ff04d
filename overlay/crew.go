package overlay

import (
	goruntime "runtime"
	"sync"
)

// A crew works on jobs of which each may bring more. The first error ends it.
type crew[J any] struct {
	mu   sync.Mutex
	cond sync.Cond
	jobs []J // a stack: depth first keeps it short
	busy int // jobs being worked on
	err  error
}

// run works on what was pushed, until nothing is left. Each worker is made by a call
// of worker.
func (c *crew[J]) run(worker func() func(J) error) error {
	c.cond.L = &c.mu
	var wg sync.WaitGroup
	for range min(4, goruntime.GOMAXPROCS(0)) {
		wg.Go(func() { c.work(worker()) })
	}
	wg.Wait()
	return c.err
}

func (c *crew[J]) work(do func(J) error) {
	for {
		job, ok := c.next()
		if !ok {
			return
		}
		err := do(job)
		c.mu.Lock()
		c.busy--
		if err != nil && c.err == nil {
			c.err = err
		}
		c.cond.Broadcast()
		c.mu.Unlock()
	}
}

// next waits for a job; false when there will be none any more.
func (c *crew[J]) next() (job J, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.jobs) == 0 && c.busy > 0 && c.err == nil {
		c.cond.Wait()
	}
	if len(c.jobs) == 0 || c.err != nil {
		return job, false
	}
	job = c.jobs[len(c.jobs)-1]
	c.jobs = c.jobs[:len(c.jobs)-1]
	c.busy++
	return job, true
}

func (c *crew[J]) push(job J) {
	c.mu.Lock()
	c.jobs = append(c.jobs, job)
	c.cond.Signal()
	c.mu.Unlock()
}

func (c *crew[J]) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}
