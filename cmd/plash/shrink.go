package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ihucos/plash/container"
)

type shrinkOptions struct{ dry bool }

func newShrink() *command {
	var o shrinkOptions
	c := &command{
		usage: "[--dry-run]",
		long: `
Removes the half of the containers that was used least recently, with the layers
that only they needed, and prints their ids. Who uses a container uses all that
it stands on: a base goes after what was built on it. To run, build on, mount
or export a container is to use it, which is noted to the hour.

Names do not protect a container. What runs or is mounted goes on working.`,
		example: "plash-shrink --dry-run\nplash-shrink",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runShrink(ctx, o, s)
		},
	}
	c.options().BoolVarP(&o.dry, "dry-run", "n", false, "print the ids, and remove nothing")
	return c
}

func runShrink(ctx context.Context, o shrinkOptions, s streams) error {
	st, err := openStore("shrink", s)
	if err != nil {
		return err
	}
	if o.dry {
		ids, err := st.Shrinkable(ctx)
		if err != nil {
			return err
		}
		return s.print(lines(ids))
	}
	ids, freed, err := st.Shrink(ctx)
	err = errors.Join(err, s.print(lines(ids)))
	if err == nil {
		fmt.Fprintf(s.err, "%s freed\n", humanSize(freed))
	}
	return err
}

// lines has each id on a line.
func lines(ids []container.ID) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&b, id)
	}
	return b.String()
}
