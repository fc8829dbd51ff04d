package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// barRefresh is how often the bar is drawn anew. It is drawn by a clock
	// and not by arriving bytes, so that a stalled download shows a falling
	// rate, and so that a window made narrower is noticed.
	barRefresh = 200 * time.Millisecond
	// rateMemory is how much time the shown rate looks back on, roughly.
	rateMemory = 5 * time.Second
)

// defaultWidth is how wide a terminal is that does not say so.
const defaultWidth = 80

// terminalWidth is the number of columns of the terminal f, 0 where f is none.
func terminalWidth(f *os.File) int {
	if f == nil {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Col == 0 {
		return defaultWidth // serial lines and bare ptys do not know theirs
	}
	return int(ws.Col)
}

// bar draws a download on a terminal: one line, drawn over itself.
type bar struct {
	mu    sync.Mutex
	w     io.Writer
	width func() int // columns now

	total, done int64
	drawn       int // columns the line on screen takes, 0: there is none
	rate        rateMeter
	stop        chan struct{} // closed to end the drawing goroutine, nil: none runs
	stopped     chan struct{}
}

func newBar(w io.Writer, width func() int) *bar { return &bar{w: w, width: width} }

func (b *bar) Start(total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total, b.done = total, 0
	b.rate = rateMeter{}
	b.rate.add(time.Now(), 0)
	b.draw()
	if b.stop == nil {
		b.stop, b.stopped = make(chan struct{}), make(chan struct{})
		go b.run(b.stop, b.stopped)
	}
}

func (b *bar) run(stop, stopped chan struct{}) {
	defer close(stopped)
	t := time.NewTicker(barRefresh)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			b.mu.Lock()
			b.rate.add(now, b.done)
			b.draw()
			b.mu.Unlock()
		}
	}
}

func (b *bar) Set(done int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = done
}

func (b *bar) Retry(why error, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	b.print(retryLine(why, wait))
	if b.stop != nil {
		b.draw()
	}
}

func (b *bar) Complete() { b.finish(extracting) }

func (b *bar) finish(next string) {
	b.halt()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total < 0 {
		b.total = b.done
	}
	b.draw()
	b.print("\n" + next)
	b.drawn = 0
}

func (b *bar) Close() {
	b.halt()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn > 0 {
		b.print("\n")
		b.drawn = 0
	}
}

// halt ends the drawing goroutine and waits for it.
func (b *bar) halt() {
	b.mu.Lock()
	stop, stopped := b.stop, b.stopped
	b.stop = nil
	b.mu.Unlock()
	if stop != nil {
		close(stop)
		<-stopped
	}
}

func (b *bar) draw() {
	b.erase()
	// The last column stays free: a terminal that wraps at once, and not at
	// the next character, would scroll at every drawing.
	line := barLine(b.done, b.total, b.rate.value, b.width()-1)
	b.print(line)
	b.drawn = len(line)
}

// erase takes the line off the screen. A terminal that has been made narrower
// has broken it into several; the cursor is on the last of them.
func (b *bar) erase() {
	if b.drawn == 0 {
		return
	}
	up := ""
	if width := b.width(); width > 0 {
		if rows := (b.drawn - 1) / width; rows > 0 {
			up = fmt.Sprintf("\x1b[%dA", rows)
		}
	}
	b.print("\r" + up + "\x1b[J")
	b.drawn = 0
}

func (b *bar) print(s string) { _, _ = io.WriteString(b.w, s) }

// barLine is the line for a download in at most width columns. It leaves out
// the bar, then the rate, then the amount, where there is no room. All of it
// is ASCII, so that bytes are columns; parts that change keep their width, so
// that the others stay where they are.
func barLine(done, total int64, rate float64, width int) string {
	amount, speed := byteSize(done), byteSize(int64(rate))+"/s"
	if total <= 0 {
		return fit([]string{fmt.Sprintf("%s  %s", amount, speed), amount}, width)
	}
	part := min(float64(done)/float64(total), 1)
	whole := byteSize(total)
	amount = fmt.Sprintf("%3d%%  %*s/%s", int(part*100), max(len(whole), len("999.9 MB")), amount, whole)
	left := ""
	if rate >= 1 && done < total {
		left = timeLeft(float64(total-done) / rate)
	}
	full := fmt.Sprintf("%s  %10s  %5s", amount, speed, left)
	if cells := width - len(full) - len("[]  "); cells >= 10 {
		cells = min(cells, 50)
		filled := int(part * float64(cells))
		return fmt.Sprintf("[%s%s]  %s", strings.Repeat("#", filled), strings.Repeat(".", cells-filled), full)
	}
	return fit([]string{full, amount, amount[:len("100%")]}, width)
}

// fit returns the first that is not longer than width, else nothing.
func fit(lines []string, width int) string {
	for _, l := range lines {
		if len(l) <= width {
			return l
		}
	}
	return ""
}

func byteSize(n int64) string {
	switch {
	case n < 1_000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	}
}

func timeLeft(seconds float64) string {
	if seconds >= 100*3600 {
		return "--:--"
	}
	s := int(seconds + 0.5)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// rateMeter follows a rate in bytes a second, forgetting what is older than
// rateMemory gradually.
type rateMeter struct {
	value float64
	at    time.Time
	bytes int64
	span  time.Duration // looked back on so far
}

func (m *rateMeter) add(now time.Time, bytes int64) {
	if m.at.IsZero() {
		m.at, m.bytes = now, bytes
		return
	}
	d := now.Sub(m.at)
	if d <= 0 {
		return
	}
	// At first the plain average, later the average over rateMemory.
	m.span = min(m.span+d, rateMemory)
	weight := min(float64(d)/float64(m.span), 1)
	m.value += weight * (float64(bytes-m.bytes)/d.Seconds() - m.value)
	m.at, m.bytes = now, bytes
}
