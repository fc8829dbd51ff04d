package progress

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const wholePlain = "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\nextracting...\n"

func TestPlainProgress(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(p Display)
	}{
		{"in steps", wholePlain, func(p Display) {
			p.Start(1000)
			for n := range int64(1001) {
				p.Set(n)
			}
			p.Complete()
			p.Close()
		}},
		{"at once", wholePlain, func(p Display) { p.Start(5); p.Set(5); p.Complete(); p.Close() }},
		{"empty", wholePlain, func(p Display) { p.Start(0); p.Set(0); p.Complete(); p.Close() }},
		{"full but not complete", "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%\n", func(p Display) { p.Start(5); p.Set(5); p.Close() }},
		{"broken off", "[0%|10%\n", func(p Display) { p.Start(100); p.Set(15); p.Close(); p.Set(90); p.Complete() }},
		{"never begun", "", func(p Display) { p.Close() }},
		{"unknown length", "[0MB|10MB|20MB|done]\nextracting...\n", func(p Display) { p.Start(-1); p.Set(25_000_000); p.Complete(); p.Close() }},
		{"huge length", "[0%|10%|20%|30%|40%|50%\n", func(p Display) { p.Start(1 << 62); p.Set(1 << 61); p.Close() }},
		{"cut off", "[0%|10%\ncut: trying again in 2s\n[20%|30%|40%|50%|60%|70%|80%|90%|100%]\nextracting...\n", func(p Display) {
			p.Start(100)
			p.Set(15)
			p.Retry(errors.New("cut"), 2*time.Second)
			p.Set(30)
			p.Complete()
			p.Close()
		}},
		{"begun again", "[0%|10%\n[0%|10%|20%\n", func(p Display) { p.Start(100); p.Set(10); p.Start(50); p.Set(10); p.Close() }},
		{"used again", wholePlain + wholePlain, func(p Display) {
			for range 2 {
				p.Start(1)
				p.Complete()
				p.Close()
			}
		}},
	} {
		var b bytes.Buffer
		c.do(NewPlain(&b))
		if b.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, b.String(), c.want)
		}
	}
}

func TestBarLine(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		rate        float64
		width       int
		want        string
	}{
		{0, 100_000_000, 0, 79, "[....................................]    0%       0 B/100.0 MB       0 B/s       "},
		{50_000_000, 100_000_000, 1e6, 79, "[############............]   50%   50.0 MB/100.0 MB    1.0 MB/s   0:50"},
		{50_000_000, 100_000_000, 1e6, 42, " 50%   50.0 MB/100.0 MB    1.0 MB/s   0:50"},
		{50_000_000, 100_000_000, 1e6, 41, " 50%   50.0 MB/100.0 MB"},
		{50_000_000, 100_000_000, 1e6, 10, " 50%"},
		{50_000_000, 100_000_000, 1e6, 2, ""},
		{50_000_000, 100_000_000, 1e6, -1, ""},
		{1, 1 << 62, 1, 80, "[..........]    0%               1 B/4611686018.43 GB       1 B/s  --:--"},
		{999, -1, 10, 79, "999 B  10 B/s"},
		{999, -1, 10, 8, "999 B"},
		{5, 5, 10, 60, "[##########]  100%       5 B/5 B      10 B/s       "},
	} {
		got := barLine(c.done, c.total, c.rate, c.width)
		if len(got) > max(c.width, 0) {
			t.Errorf("%+v: %q is %d wide", c, got, len(got))
		}
		squeeze := regexp.MustCompile(`[#.]{10,}`)
		if squeeze.ReplaceAllString(got, "#") != squeeze.ReplaceAllString(c.want, "#") {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}

// screen is a writer that several goroutines may use.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func TestBar(t *testing.T) {
	var s screen
	width := 80
	b := newBar(&s, func() int { return width })
	b.Start(100)
	b.Set(50)
	b.Retry(errors.New("cut"), time.Second)
	b.mu.Lock()
	long := b.drawn
	b.mu.Unlock()
	width = 20 // the line of about 70 columns now fills four
	b.mu.Lock()
	b.draw()
	b.mu.Unlock()
	b.Set(100)
	b.Complete()
	b.Close()
	got := s.b.String()
	if want := "\r\x1b[" + string(rune('0'+(long-1)/20)) + "A\x1b[J"; !strings.Contains(got, want) {
		t.Errorf("%q, want %q in it", got, want)
	}
	if !strings.HasSuffix(got, "100%\nextracting...\n") && !strings.HasSuffix(got, "100 B/100 B\nextracting...\n") {
		t.Errorf("ends with %q", got[max(0, len(got)-60):])
	}
	if !strings.Contains(got, "cut: trying again in 1s\n") {
		t.Errorf("%q: no word of the retry", got)
	}
}

func TestRateMeter(t *testing.T) {
	var m rateMeter
	now := time.Now()
	bytes := int64(0)
	for range 20 {
		m.add(now, bytes)
		now, bytes = now.Add(time.Second), bytes+1000
	}
	if m.value < 999 || m.value > 1001 {
		t.Errorf("steady rate: %v", m.value)
	}
	for range 30 {
		m.add(now, bytes)
		now = now.Add(time.Second)
	}
	if m.value > 10 {
		t.Errorf("after a stall: %v", m.value)
	}
}

func TestBarOnFile(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewBar(f)
	p.Start(10)
	p.Set(10)
	p.Complete()
	p.Close()
	if b, err := os.ReadFile(f.Name()); err != nil || !strings.Contains(string(b), "100%") {
		t.Errorf("%q, %v", b, err)
	}
}
