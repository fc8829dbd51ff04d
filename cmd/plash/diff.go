package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
)

type diffOptions struct {
	container containerArg
	other     containerArg // empty: the parent
}

func newDiff() *command {
	return &command{
		operands: grammar{"CONTAINER", "[OTHER]"},
		long: `
Lists the paths of CONTAINER that are not as in the container it was built on,
or in OTHER: A added, C changed (content, mode, owner, times, attributes), D
deleted. Sorted by path; a path with control characters is in double quotes, as
C writes strings.`,
		example: "plash-diff 3\nplash-diff 3 1",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runDiff(ctx, diffOptions{container: a.container(0), other: a.container(1)}, s)
		},
	}
}

func runDiff(ctx context.Context, o diffOptions, s streams) error {
	st, id, err := o.container.open(ctx, "diff", s)
	if err != nil {
		return err
	}
	var other container.ID
	if o.other.empty() {
		r, err := st.Get(id)
		if err != nil {
			return err
		}
		other = r.Parent
	} else if other, err = o.other.resolve(ctx, st, s); err != nil {
		return err
	}
	changes, err := diff(ctx, st, other, id)
	if err != nil {
		return fmt.Errorf("compare %d with %d: %w", id, other, err)
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%c %s\n", c.Kind, quotePath(c.Path))
	}
	return s.print(b.String())
}

// diff compares two containers. The changes are sorted by path.
func diff(ctx context.Context, st *container.Store, from, to container.ID) ([]cas.Change, error) {
	old, err := layersOf(st, from)
	if err != nil {
		return nil, err
	}
	new, err := layersOf(st, to)
	if err != nil {
		return nil, err
	}
	var changes []cas.Change
	err = st.CAS().Diff(ctx, old, new, func(c cas.Change) error {
		changes = append(changes, c)
		return nil
	})
	if err != nil {
		// A layer may be missing because its container was removed just now.
		_, fromErr := st.Get(from)
		_, toErr := st.Get(to)
		if gone := errors.Join(fromErr, toErr); errors.Is(gone, container.ErrNotFound) {
			return nil, gone
		}
		return nil, err
	}
	slices.SortFunc(changes, func(a, b cas.Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, nil
}

func layersOf(st *container.Store, id container.ID) ([]digest.Digest, error) {
	chain, err := st.Chain(id)
	if err != nil {
		return nil, err
	}
	layers := make([]digest.Digest, len(chain))
	for i, r := range chain {
		layers[i] = r.Layer
	}
	return layers, nil
}

// quotePath gives a path that stays on its line.
func quotePath(path string) string {
	if escape(path) == path {
		return path
	}
	return strconv.Quote(path)
}
