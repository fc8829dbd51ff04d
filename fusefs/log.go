package fusefs

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// maxDamage is for how many inodes damage is told: after that, the image as a whole is
// damaged.
const maxDamage = 1000

// A damageLog writes a line for each inode that is damaged, the first time that it
// is met.
type damageLog struct {
	out io.Writer

	mu   sync.Mutex
	seen map[uint64]bool
}

// inode logs that an inode is damaged.
func (l *damageLog) inode(node uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[node] || len(l.seen) > maxDamage {
		return
	}
	if l.seen == nil {
		l.seen = make(map[uint64]bool)
	}
	l.seen[node] = true
	err = fmt.Errorf("inode %d: %w", node, err)
	if len(l.seen) > maxDamage {
		err = fmt.Errorf("more than %d files are damaged: the others are not told", maxDamage)
	}
	l.line(err)
}

// line logs an error. That it cannot be logged changes nothing.
func (l *damageLog) line(err error) { fmt.Fprintf(l.out, "%v\n", err) }

// maxLogLines is how many lines a server writes at most.
const maxLogLines = 2000

// A logger writes lines with a prefix, each line once.
type logger struct {
	out    io.Writer
	prefix string

	mu   sync.Mutex
	seen map[string]bool
}

func (l *logger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := string(bytes.TrimSpace(p))
	if l.seen[line] || len(l.seen) >= maxLogLines {
		return len(p), nil
	}
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	l.seen[line] = true
	if _, err := fmt.Fprintf(l.out, "%s: %s\n", l.prefix, line); err != nil {
		return 0, err
	}
	return len(p), nil
}
