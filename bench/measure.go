package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// contender is one way to do a thing, or several things one after the other.
type contender struct {
	name string
	// prepare is not measured; do is, and then each of more. All but do may be
	// nil. clean follows every prepare that went well, whatever came after it.
	prepare func() error
	do      func() error
	more    []func() error
	clean   func() error

	per     int               // how often do does the thing; 0 is once
	mayFail bool              // although it is plash's own
	times   [][]time.Duration // of do and of each of more, in all rounds
	err     error             // what ended it
	failed  int               // number of what failed: 0 is do, or all of it
}

// race measures contenders in turn, round by round, so that what disturbs the machine
// disturbs all of them; the fastest round of each counts. One that fails is
// shown as failed and does not stop the others, unless it is plash's own.
func (b *bench) race(cs []*contender) error {
	for range b.rounds {
		for _, c := range cs {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			if c.err != nil {
				continue
			}
			c.err = c.once()
			if err := b.ctx.Err(); err != nil {
				return err // and not what that made of the contender
			}
			if c.err != nil && strings.HasPrefix(c.name, "plash") && !c.mayFail {
				return fmt.Errorf("%s: %w", c.name, c.err)
			}
		}
	}
	return nil
}

func (c *contender) once() (err error) {
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	if c.clean != nil {
		defer func() { err = errors.Join(err, c.clean()) }()
	}
	all := append([]func() error{c.do}, c.more...)
	if c.times == nil {
		c.times = make([][]time.Duration, len(all))
	}
	for i, do := range all {
		start := time.Now()
		if err := do(); err != nil {
			c.failed = i
			return err
		}
		c.times[i] = append(c.times[i], time.Since(start))
	}
	return nil
}

// best is the fastest round of what has that number; 0 is do.
func (c *contender) best(i int) time.Duration {
	if !c.has(i) {
		return 0
	}
	return slices.Min(c.times[i]) / time.Duration(max(c.per, 1))
}

// has tells whether there is a result of what has that number.
func (c *contender) has(i int) bool {
	return i < len(c.times) && len(c.times[i]) > 0 && (c.err == nil || i < c.failed)
}

// slower returns the contender that took longer.
func slower(a, b *contender) *contender {
	if a.best(0) > b.best(0) {
		return a
	}
	return b
}
