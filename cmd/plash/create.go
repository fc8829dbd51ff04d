package main

import (
	"context"
	"errors"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
)

type createOptions struct {
	container containerArg
	argv      []string
}

func newCreate() *command {
	return &command{
		operands: grammar{"CONTAINER", "[CMD…]"},
		usage:    "CONTAINER [--] [CMD…]",
		long: `
Runs CMD in CONTAINER, as plash-run does, and keeps what it changed outside the
shared directories as a new container, whose id is printed. If CMD fails there
is no new container. Without CMD runs a shell, and keeps its work whatever its
last command came to.`,
		example: "plash-create 2 touch /file\nplash-create --image alpine --\nplash-create 2",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runCreate(ctx, createOptions{container: a.container(0), argv: a.from(1)}, s)
		},
	}
}

func runCreate(ctx context.Context, o createOptions, s streams) (err error) {
	st, id, err := o.container.open(ctx, "create", s)
	if err != nil {
		return err
	}
	resume := yieldSignals(ctx)
	layer, err := runtime.RunLayer(ctx, st, id, runtime.LayerOptions{
		Argv:   o.argv,
		Stdin:  s.in,
		Stdout: s.err, // standard output carries the id alone
		Stderr: s.err,
		// The work of an hour in a shell is not lost because its last command
		// was a typing error.
		IgnoreStatus: len(o.argv) == 0,
	})
	if err := resume(err); err != nil {
		return err
	}
	return keepLayer(ctx, st, id, layer, container.Origin{Kind: "create", From: strings.Join(o.argv, " ")}, s)
}

// keepLayer makes a container of a layer and prints its id.
func keepLayer(ctx context.Context, st *container.Store, parent container.ID, layer *cas.Staged, from container.Origin, s streams) (err error) {
	defer func() { err = errors.Join(err, layer.Close()) }()
	below, err := st.Get(parent)
	if err != nil {
		return err
	}
	r, err := st.Create(ctx, parent, layer, container.CreateOptions{Origin: from, Config: below.Config})
	if err != nil {
		return err
	}
	return s.result(r.ID)
}

type addLayerOptions struct {
	container containerArg
	dir       string
}

func newAddLayer() *command {
	return &command{
		operands: grammar{"CONTAINER", "DIR"},
		long: `
Makes a new container of CONTAINER with the content of DIR laid over it, and
prints its id. DIR is left as it is; its own owner and mode do not count, except
on container 0, where they become those of the root.`,
		example: "plash-add-layer 2 ./root\nplash-add-layer 0 /srv/debian-root",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runAddLayer(ctx, addLayerOptions{container: a.container(0), dir: a.operand(1)}, s)
		},
	}
}

func runAddLayer(ctx context.Context, o addLayerOptions, s streams) error {
	st, id, err := o.container.open(ctx, "add-layer", s)
	if err != nil {
		return err
	}
	layer, err := runtime.PackDir(ctx, st, id, o.dir)
	if err != nil {
		return err
	}
	return keepLayer(ctx, st, id, layer, container.Origin{Kind: "add-layer", From: o.dir}, s)
}
