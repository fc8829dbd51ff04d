package posixtest

import (
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
)

// A recorder keeps what a case complains of, since whether that is a failure is
// decided afterwards. A case runs in goroutines of its own, which FailNow and
// Skip end as those of testing do.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	skipped  string
}

func (r *recorder) record(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, place()+": "+strings.TrimSpace(text))
}

func (r *recorder) Error(args ...any)                 { r.record(fmt.Sprintln(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.record(fmt.Sprintf(format, args...)) }

func (r *recorder) Fatal(args ...any) {
	r.record(fmt.Sprintln(args...))
	goruntime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.record(fmt.Sprintf(format, args...))
	goruntime.Goexit()
}

func (r *recorder) Fail() { r.record("failed") }

func (r *recorder) FailNow() {
	r.Fail()
	goruntime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	goruntime.Goexit()
}

func (r *recorder) Skip(args ...any) { r.Skipf("%s", fmt.Sprint(args...)) }
func (r *recorder) SkipNow()         { r.Skipf("skipped") }

// place is the line of the table that complains.
func place() string {
	pcs := make([]uintptr, 20)
	frames := goruntime.CallersFrames(pcs[:goruntime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		switch file := filepath.Base(frame.File); {
		case file != "recorder.go" && file != "env.go" && file != "user.go":
			return fmt.Sprintf("%s:%d", file, frame.Line)
		case !more:
			return "?"
		}
	}
}
