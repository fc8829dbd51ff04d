package image

import (
	"io"
	"sync"
	"time"

	"github.com/ihucos/plash/importexport/progress"
)

const (
	// largeRead is from how many bytes on progress is shown from the beginning.
	largeRead = 64 << 20
	// patience is how long reading may take before progress is shown.
	patience = time.Second
)

// A meter shows how the reading of several layers goes, unless it is soon done.
type meter struct {
	mu      sync.Mutex
	display progress.Display
	total   int64 // -1: not known
	done    int64
	from    time.Time
	started bool
}

// newMeter is for the layers of those numbers.
func newMeter(d progress.Display, layers []Layer, numbers []int) *meter {
	m := &meter{display: d, from: time.Now()}
	for _, i := range numbers {
		switch l := layers[i]; {
		case l.staged != nil:
		case l.Size < 0:
			m.total = -1
			return m
		default:
			m.total += l.Size
		}
	}
	return m
}

// count returns a reader of r whose bytes count.
func (m *meter) count(r io.Reader) io.Reader { return &meteredReader{r, m} }

type meteredReader struct {
	r io.Reader
	m *meter
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.m.add(int64(n))
	return n, err
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if !m.started && (m.total >= largeRead || m.done >= largeRead || time.Since(m.from) >= patience) {
		m.started = true
		m.display.Start(m.total)
	}
	if m.started {
		m.display.Set(m.done)
	}
}

// complete says that all has been read.
func (m *meter) complete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started {
		m.display.Complete()
	}
}

func (m *meter) close() { m.display.Close() }
