package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"
)

// contender is one way to do a thing.
type contender struct {
	name string
	// prepare is not measured; do is. Either may be nil.
	prepare func() error
	do      func() error
	clean   func() error
	best    time.Duration
	err     error
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
			if c.err != nil && strings.HasPrefix(c.name, "plash") {
				return fmt.Errorf("%s: %w", c.name, c.err)
			}
		}
	}
	return nil
}

func (c *contender) once() error {
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := c.do(); err != nil {
		return err
	}
	if d := time.Since(start); c.best == 0 || d < c.best {
		c.best = d
	}
	if c.clean != nil {
		return c.clean()
	}
	return nil
}

// table prints the contenders' times and their ratios to the baselines, which are
// contenders too.
func table(w io.Writer, title string, cs []*contender, baselines ...*contender) {
	fmt.Fprintf(w, "\n%s\n\n", title)
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(tw, "| what\t| ms")
	for _, base := range baselines {
		fmt.Fprintf(tw, "\t| × %s", base.name)
	}
	fmt.Fprint(tw, "\t|\n| ---\t| ---")
	fmt.Fprint(tw, strings.Repeat("\t| ---", len(baselines)), "\t|\n")
	for _, c := range cs {
		if c.err != nil {
			fmt.Fprintf(tw, "| %s\t| %s%s\t|\n", c.name, firstLine(c.err), strings.Repeat("\t| ", len(baselines)))
			continue
		}
		fmt.Fprintf(tw, "| %s\t| %.2f", c.name, float64(c.best.Microseconds())/1000)
		for _, base := range baselines {
			fmt.Fprintf(tw, "\t| %.2f", float64(c.best)/float64(base.best))
		}
		fmt.Fprint(tw, "\t|\n")
	}
	tw.Flush()
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// slower returns the contender that took longer.
func slower(a, b *contender) *contender {
	if a.best > b.best {
		return a
	}
	return b
}

// command runs a program with its output thrown away, unless it fails.
func (b *bench) command(env []string, name string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// output runs a program and returns what it printed.
func (b *bench) output(env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// have reports whether a program is installed.
func have(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
