package main

import (
	"os"
	"testing"
)

func TestParseRollup(t *testing.T) {
	text := `55d0c8a00000-7ffd0b5f4000 ---p 00000000 00:00 0                          [rollup]
Rss:                1412 kB
Pss:                 224 kB
Pss_Dirty:           100 kB
Anonymous:            96 kB
LazyFree:              0 kB
`
	got, err := parseRollup([]byte(text))
	if want := (memory{1412 << 10, 224 << 10, 96 << 10}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseRollup([]byte("Rss: 1 kB\n")); err == nil {
		t.Error("no error where lines are missing")
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	got, err := memoryOf([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if got.rss < 1<<20 || got.anon > got.rss {
		t.Errorf("%+v", got)
	}
}

func TestProcessesOf(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range processesOf(exe) {
		if pid == os.Getpid() {
			return
		}
	}
	t.Errorf("this process is not among those of %s", exe)
}
