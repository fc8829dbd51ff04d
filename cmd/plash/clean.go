package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ihucos/plash/overlay/copytree"
)

type cleanOptions struct{}

func newClean() *command {
	return &command{
		long: `
Frees what no container needs: scratch space of processes that were killed,
layers that nothing refers to, and copies of trees that nobody works in. Says on standard error how much that was.`,
		example: "plash-clean",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runClean(ctx, cleanOptions{}, s)
		},
	}
}

func runClean(ctx context.Context, _ cleanOptions, s streams) error {
	st, err := openStore("clean", s)
	if err != nil {
		return err
	}
	freed, err := st.Collect(ctx)
	if err != nil {
		return err
	}
	idle, err := copytree.RemoveIdle(st.CAS())
	if err != nil {
		return err
	}
	freed += idle
	fmt.Fprintf(s.err, "%s freed\n", humanSize(freed))
	return nil
}

type purgeOptions struct{ yes bool }

func newPurge() *command {
	var o purgeOptions
	c := &command{
		usage: "[--yes]",
		long: `
Removes all containers, names and layers. Asks before it does, and refuses
where there is no terminal to ask at. What runs or is mounted goes on working.`,
		example: "plash-purge --yes",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runPurge(ctx, o, s)
		},
	}
	c.options().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return c
}

func runPurge(ctx context.Context, o purgeOptions, s streams) error {
	st, err := openStore("purge", s)
	if err != nil {
		return err
	}
	if !o.yes {
		if err := confirm(ctx, s, fmt.Sprintf("Remove everything in %s?", escape(st.CAS().Dir()))); err != nil {
			return err
		}
	}
	return st.Purge(ctx)
}

var (
	errNotConfirmed = errors.New("not confirmed, nothing is removed")
	errNobodyToAsk  = errors.New("no terminal to ask for confirmation, nothing is removed")
)

// confirm asks a question on the terminal; anything but yes is a no.
func confirm(ctx context.Context, s streams, question string) error {
	if !isTerminal(s.in) {
		return withHint(errNobodyToAsk, "--yes means that you are sure")
	}
	fmt.Fprintf(s.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // a read of a terminal cannot be cancelled; the process ends with it
		line, err := bufio.NewReader(s.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.err)
		return ctx.Err()
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return errNotConfirmed
	}
}
