package progress

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// largeWork is from how many bytes on progress is shown from the beginning.
	largeWork = 64 << 20
	// patience is how long work may take before progress is shown.
	patience = time.Second
	// step is how many bytes are not worth telling a display: there may be a million small files.
	step = 64 << 10
	// notYet is the total of a meter that is told of it while the work is under way.
	notYet = -2
)

// A Meter counts the bytes of work that is being done, and shows how that goes, unless it is
// soon done: what takes no time needs no display. Its methods may be called by any number
// of goroutines. A nil Meter counts nothing.
type Meter struct {
	late  atomic.Bool // it takes its time
	timer *time.Timer // sets that

	mu      sync.Mutex
	display Display
	total   int64 // -1: not known; notYet
	done    int64
	told    int64 // to the display
	started bool
	ended   bool
}

// NewMeter returns a meter of work that is total bytes, -1 where that is not known. The display
// nil shows nothing. The caller closes it.
func NewMeter(d Display, total int64) *Meter {
	if d == nil {
		d = Quiet{}
	}
	m := &Meter{display: d, total: total}
	m.timer = time.AfterFunc(patience, func() { m.late.Store(true) })
	return m
}

// Show does work that tells a meter what it expects and how far it is, which is shown on d. It ends
// the display, whatever the work comes to.
func Show(d Display, work func(*Meter) error) error {
	m := NewMeter(d, notYet)
	defer m.Close()
	if err := work(m); err != nil {
		return err
	}
	m.Done()
	return nil
}

// Expect says how many bytes there are in total. Nothing is shown before.
func (m *Meter) Expect(n int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = n
	if m.done > 0 {
		m.show()
	}
}

// Add counts bytes as done.
func (m *Meter) Add(n int64) {
	if m == nil || n <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	m.show()
}

// back has the work go on where only done bytes of it were done.
func (m *Meter) back(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.told = done, min(m.told, done)
	if m.ended {
		m.started, m.ended = false, false
	}
}

// show tells the display, if there is something to tell.
func (m *Meter) show() {
	switch {
	case m.ended, m.total == notYet:
	case !m.started && (m.total >= largeWork || m.done >= largeWork || m.late.Load()):
		m.started = true
		m.display.Start(m.total)
		m.tell()
	case m.started && (m.done-m.told >= step || m.done == m.total):
		m.tell()
	}
}

func (m *Meter) tell() {
	m.told = m.done
	m.display.Set(m.done)
}

// Counts returns how many bytes are done, and of how many.
func (m *Meter) Counts() (done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done, m.total
}

// Complete says that the last byte has been read, see [Display].
func (m *Meter) Complete() { m.end(Display.Complete) }

// Done says that the work is done, and nothing comes after it.
func (m *Meter) Done() { m.end(Done) }

func (m *Meter) end(how func(Display)) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started && !m.ended {
		if m.told < m.done {
			m.tell()
		}
		how(m.display)
	}
	m.ended = true
}

// Close ends the display, in the middle if the work is not done.
func (m *Meter) Close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	m.timer.Stop()
	m.display.Close()
}
