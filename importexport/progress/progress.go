// Package progress shows how downloads, and other work that is counted in bytes,
// go: as a bar on a terminal, as a line of text elsewhere. What cannot be shown is
// never an error.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A Display is told how a download, or other work, goes. The methods are called one at a time,
// except Close.
type Display interface {
	// Start begins work of total bytes, -1 where that is not known, as the server does not
	// say. A second Start means that the download begins again.
	Start(total int64)
	// Set says how many bytes have arrived, or are done, so far.
	Set(done int64)
	// Retry says that the connection was lost and will be made again.
	Retry(why error, wait time.Duration)
	// Complete says that the last byte has arrived; what remains is to unpack
	// and to index it.
	Complete()
	// Close ends the display, also in the middle of a download, and leaves
	// the cursor at the beginning of a line. It may be started anew.
	Close()
}

// extracting is printed when a download is complete and its end is being
// unpacked and indexed.
const extracting = "extracting...\n"

// NewBar returns a bar for a terminal that can draw one.
func NewBar(f *os.File) Display {
	return newBar(f, func() int {
		if width := terminalWidth(f); width > 0 {
			return width
		}
		return defaultWidth
	})
}

// NewPlain returns a display for files and pipes: [0%|10%|…|100%] on
// one line, each part printed when it is reached. Where the length is not
// known it prints a part for every 10 MB in place of every tenth.
func NewPlain(w io.Writer) Display { return &plain{w: w} }

// unknownStep is the distance between two parts where the length is unknown.
const unknownStep = 10_000_000

// plain shows a download as one line of text that only grows. What cannot be
// written is not missed: progress never makes an import fail.
type plain struct {
	mu     sync.Mutex
	w      io.Writer
	total  int64
	open   bool  // a line is begun and not ended
	next   int64 // the part to print next
	closed bool
}

func (p *plain) Start(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	p.total, p.next, p.closed = total, 0, false
	p.advance(0)
}

func (p *plain) Set(done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(done)
}

// advance prints the parts up to done bytes, but not the last: 100% is only
// true once the end of the download has been seen.
func (p *plain) advance(done int64) {
	if p.closed {
		return
	}
	var b strings.Builder
	for p.next <= p.reached(done) {
		b.WriteString(p.part(p.label()))
		p.next++
	}
	p.print(b.String())
}

// reached is the number of the last part that done bytes earn.
func (p *plain) reached(done int64) int64 {
	switch {
	case p.total < 0:
		return done / unknownStep
	case p.total == 0:
		return 0
	default:
		// Divided first: ten times a hostile total overflows.
		return min(int64(float64(done)/float64(p.total)*10), 9)
	}
}

func (p *plain) label() string {
	if p.total < 0 {
		return fmt.Sprintf("%dMB", p.next*unknownStep/1_000_000)
	}
	return fmt.Sprintf("%d%%", p.next*10)
}

// part opens the line or separates the label from the one before.
func (p *plain) part(label string) string {
	if p.open {
		return "|" + label
	}
	p.open = true
	return "[" + label
}

func (p *plain) Retry(why error, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.endLine()
	p.print(retryLine(why, wait))
}

func (p *plain) Complete() { p.finish(extracting) }

func (p *plain) finish(next string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	var b strings.Builder
	if p.total >= 0 {
		for ; p.next <= 10; p.next++ {
			b.WriteString(p.part(p.label()))
		}
	} else {
		b.WriteString(p.part("done"))
	}
	b.WriteString("]\n" + next)
	p.open = false
	p.print(b.String())
}

func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	p.closed = true
}

func (p *plain) endLine() {
	if p.open {
		p.print("\n")
		p.open = false
	}
}

func (p *plain) print(s string) {
	if s != "" {
		_, _ = io.WriteString(p.w, s)
	}
}

func retryLine(why error, wait time.Duration) string {
	return fmt.Sprintf("%v: trying again in %v\n", why, wait.Round(100*time.Millisecond))
}

// Quiet is a [Display] that shows nothing.
type Quiet struct{}

func (Quiet) Start(int64)                {}
func (Quiet) Set(int64)                  {}
func (Quiet) Retry(error, time.Duration) {}
func (Quiet) Complete()                  {}
func (Quiet) Close()                     {}
