package build

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestDone(t *testing.T) {
	for _, tt := range []struct {
		times, color bool
		took         time.Duration
		want         string
	}{
		{true, false, time.Second - 1, "--:\n"},
		{false, false, time.Minute, "--:\n"},
		{true, false, 1240 * time.Millisecond, "took 1.2s\n--:\n"},
		{true, false, 83*time.Second + 1, "took 1m23s\n--:\n"},
		{true, true, 2 * time.Second, "\x1b[2mtook 2s\x1b[m\n\x1b[1;34m--:\x1b[m\n"},
	} {
		var log bytes.Buffer
		s := step{Builder: &Builder{Stderr: &log, Times: tt.times, Color: tt.color}}
		if err := s.done(tt.took); err != nil || log.String() != tt.want {
			t.Errorf("%v: %q, %v; want %q", tt, &log, err, tt.want)
		}
	}
}

// Colors are of the log alone: the key is that of the script without.
func TestColoredScript(t *testing.T) {
	b := newBench(t)
	id, _ := b.build(t, "-x", "a")
	b.Color = true
	b.expect(t, id, "", "-x", "a")
	if _, err := b.Build(t.Context(), parse(t, "-i", "base", "-x", "b")); err != nil {
		t.Fatal(err)
	}
	if len(b.ran) != 1 || b.ran[0] != coloredPrologue+"b\n" {
		t.Errorf("ran %q", b.ran)
	}
	eachShell(t, func(t *testing.T, shell []string) {
		_, log := runScript(t, shell, t.TempDir(), coloredPrologue+"echo c\n")
		if !strings.Contains(log, colorMark+"-->"+colorOff+" echo c\n") {
			t.Errorf("%q: %q", shell, log)
		}
	})
}
