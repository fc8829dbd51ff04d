package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// timesOf makes a contender as if it had been measured: a list of rounds for each thing
// it does.
func timesOf(name string, rounds ...[]time.Duration) *contender {
	return &contender{name: name, times: rounds}
}

const ms = time.Millisecond

func TestRace(t *testing.T) {
	var done []string
	note := func(what string) func() error {
		return func() error {
			done = append(done, what)
			return nil
		}
	}
	b := &bench{ctx: context.Background(), rounds: 2}
	first := &contender{name: "a", prepare: note("prepare"), do: note("do"), more: []func() error{note("more")}, clean: note("clean")}
	second := &contender{name: "b", do: func() error { return errors.New("broken") }, clean: note("clean b")}
	if err := b.race([]*contender{first, second}); err != nil {
		t.Fatal(err)
	}
	want := "prepare do more clean clean b prepare do more clean" // b stays out of the second round
	if got := strings.Join(done, " "); got != want {
		t.Errorf("done: %s\nexpected: %s", got, want)
	}
	if !first.has(0) || !first.has(1) || first.has(2) || len(first.times[1]) != 2 {
		t.Errorf("times of what went well: %v", first.times)
	}
	if second.has(0) || second.err == nil {
		t.Errorf("what failed: error %v, times %v", second.err, second.times)
	}
}

func TestRaceStopsForOurOwn(t *testing.T) {
	b := &bench{ctx: context.Background(), rounds: 1}
	broken := &contender{name: "plash run", do: func() error { return errors.New("broken") }}
	if err := b.race([]*contender{broken}); err == nil {
		t.Error("a failure of plash was passed over")
	}
	broken = &contender{name: "plash fuse", mayFail: true, do: func() error { return errors.New("broken") }}
	if err := b.race([]*contender{broken}); err != nil {
		t.Errorf("of what may fail: %v", err)
	}
}

func TestBest(t *testing.T) {
	c := timesOf("a", []time.Duration{30 * ms, 10 * ms, 20 * ms}, []time.Duration{5 * ms, 7 * ms, 6 * ms})
	if c.best(0) != 10*ms || c.best(1) != 5*ms || c.best(2) != 0 {
		t.Errorf("best: %v, %v, %v", c.best(0), c.best(1), c.best(2))
	}
	c.per = 10
	if c.best(0) != ms {
		t.Errorf("best of ten: %v", c.best(0))
	}
	c.err, c.failed = errors.New("later"), 1
	if !c.has(0) || c.has(1) {
		t.Error("a result counts only if what it is of never failed")
	}
}

func TestUndosRunInReverse(t *testing.T) {
	var u undos
	var done []int
	for i := range 3 {
		u.add(func() error {
			done = append(done, i)
			if i == 2 {
				return errors.New("broken")
			}
			return nil
		})
	}
	if err := u.run(); err == nil {
		t.Error("the failure is lost")
	}
	if !slices.Equal(done, []int{2, 1, 0}) {
		t.Errorf("order %v", done)
	}
	if err := u.run(); err != nil || len(done) != 3 {
		t.Errorf("a second run: %v, %v", done, err)
	}
}
