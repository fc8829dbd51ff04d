package main

import (
	"context"
	"errors"
	"fmt"
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

func runDiff(ctx context.Context, o diffOptions, s streams) (err error) {
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
	old, new, err := openViews(ctx, st, other, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close(), new.Close()) }()
	changes, err := diffTrees(ctx, old, new)
	if err != nil {
		return fmt.Errorf("compare %d with %d: %w", id, other, err)
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%c %s\n", c.kind, quotePath(c.path))
	}
	return s.print(b.String())
}

// openViews opens the trees of two containers. The shared lock is held until
// their blobs are open: from then on they may be removed.
func openViews(ctx context.Context, st *container.Store, old, new container.ID) (a, b *cas.View, err error) {
	unlock, err := st.CAS().LockShared(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if a, err = openView(ctx, st, old); err != nil {
		return nil, nil, err
	}
	if b, err = openView(ctx, st, new); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a, b, nil
}

func openView(ctx context.Context, st *container.Store, id container.ID) (*cas.View, error) {
	chain, err := st.Chain(id)
	if err != nil {
		return nil, err
	}
	layers := make([]digest.Digest, len(chain))
	for i, r := range chain {
		layers[i] = r.Layer
	}
	return st.CAS().View(ctx, layers)
}

// quotePath gives a path that stays on its line.
func quotePath(path string) string {
	if escape(path) == path {
		return path
	}
	return strconv.Quote(path)
}
