package progress

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"
)

// shownWork is how work is shown that nothing comes after.
const shownWork = "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\n"

func TestShow(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name, want string
		work       func(m *Meter) error
	}{
		{"large", shownWork, func(m *Meter) error {
			m.Expect(largeWork)
			for range largeWork >> 20 {
				m.Add(1 << 20)
			}
			return nil
		}},
		{"large, as is found out later", shownWork, func(m *Meter) error { m.Add(1); m.Expect(largeWork); m.Add(largeWork - 1); return nil }},
		{"large, as is found out at the end", shownWork, func(m *Meter) error { m.Add(largeWork); m.Expect(largeWork); return nil }},
		{"slow", shownWork, func(m *Meter) error {
			m.Expect(2)
			m.late.Store(true)
			m.Add(1)
			m.Add(1)
			return nil
		}},
		{"slow at its end", shownWork, func(m *Meter) error {
			m.Expect(2)
			m.Add(1)
			m.late.Store(true)
			m.Add(1)
			return nil
		}},
		{"slow by the clock", shownWork, func(m *Meter) error {
			m.Expect(2)
			for !m.late.Load() {
				time.Sleep(time.Millisecond)
			}
			m.Add(2)
			return nil
		}},
		{"soon done", "", func(m *Meter) error { m.Expect(2); m.Add(2); return nil }},
		{"nothing to do", "", func(m *Meter) error { m.late.Store(true); m.Add(0); return nil }},
		{"of unknown size", "", func(m *Meter) error { m.late.Store(true); m.Add(largeWork); return broken }},
		{"not begun", "", func(m *Meter) error { m.Expect(largeWork); return broken }},
		{"broken off", "[0%|10%|20%|30%|40%|50%\n", func(m *Meter) error { m.Expect(largeWork); m.Add(largeWork / 2); return broken }},
		{"broken off at the end", "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%\n", func(m *Meter) error { m.Expect(largeWork); m.Add(largeWork); return broken }},
		{"by several", shownWork, func(m *Meter) error {
			m.Expect(largeWork)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 64 {
						m.Add(largeWork >> 10)
					}
				})
			}
			wg.Wait()
			if done, total := m.Counts(); done != total {
				t.Errorf("%d bytes of %d", done, total)
			}
			return nil
		}},
	} {
		var b bytes.Buffer
		var late *Meter
		err := Show(NewPlain(&b), func(m *Meter) error { late = m; return c.work(m) })
		if b.String() != c.want || err != nil && !errors.Is(err, broken) {
			t.Errorf("%s: printed %q, want %q; %v", c.name, b.String(), c.want, err)
		}
		late.Add(largeWork) // says nothing any more
		if b.String() != c.want {
			t.Errorf("%s: afterwards printed %q, want %q", c.name, b.String(), c.want)
		}
	}
}

// A meter that is not there, and one whose display is not there, can be told.
func TestNoMeter(t *testing.T) {
	for _, m := range []*Meter{nil, NewMeter(nil, -1)} {
		m.Expect(largeWork)
		m.Add(largeWork)
		m.Complete()
		m.Done()
		m.Close()
	}
}
