package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ihucos/plash/container"
)

var errNoParent = errors.New("container 0 is the empty root and has no parent")

// containerArg is a CONTAINER of the command line: a number, @KEY, or build
// actions.
type containerArg struct {
	word    string
	actions []string // not nil: the container is what they build
}

// empty reports whether the argument is an empty word.
func (c containerArg) empty() bool { return c.word == "" && c.actions == nil }

// open opens the store for the command of that name and resolves the argument.
func (c containerArg) open(ctx context.Context, name string, s streams) (*container.Store, container.ID, error) {
	st, err := openStore(name, s)
	if err != nil {
		return nil, 0, err
	}
	id, err := c.resolve(ctx, st, s)
	return st, id, err
}

// resolve finds the container, or builds it. The container exists when this
// returns.
func (c containerArg) resolve(ctx context.Context, st *container.Store, s streams) (container.ID, error) {
	if c.actions != nil {
		return buildActions(ctx, st, c.actions, s)
	}
	id, err := st.Resolve(c.word)
	if errors.Is(err, container.ErrBadID) {
		return 0, &usageError{
			what: fmt.Sprintf("%s: no container", c.word),
			hint: "CONTAINER is a number, @KEY, or build actions as in --image alpine",
		}
	}
	return id, err
}
