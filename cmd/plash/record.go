package main

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/ihucos/plash/container"
)

// Commands that read and write records of containers.

type nodeOptions struct{ container containerArg }

func newParent() *command {
	return &command{
		operands: grammar{"CONTAINER"},
		long: `
Prints the id of the container that CONTAINER was built on. An imported image
stands on container 0, the empty root, which itself has no parent.`,
		example: "plash-parent 2",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runParent(ctx, nodeOptions{a.container(0)}, s)
		},
	}
}

func runParent(ctx context.Context, o nodeOptions, s streams) error {
	st, id, err := o.container.open(ctx, "parent", s)
	if err != nil {
		return err
	}
	if id == 0 {
		return errNoParent
	}
	r, err := st.Get(id)
	if err != nil {
		return err
	}
	return s.result(r.Parent)
}

func newNodepath() *command {
	return &command{
		operands: grammar{"CONTAINER"},
		long: `
Prints the directory that records CONTAINER. Its last component is the id, and
the ids of the containers it stands on are above it, as in …/0/1/2. The files
of the container are not in there: plash-mount shows them.`,
		example: "plash-nodepath 2",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runNodepath(ctx, nodeOptions{a.container(0)}, s)
		},
	}
}

func runNodepath(ctx context.Context, o nodeOptions, s streams) error {
	st, id, err := o.container.open(ctx, "nodepath", s)
	if err != nil {
		return err
	}
	path, err := st.Path(id)
	if err != nil {
		return err
	}
	return s.result(path)
}

type mapOptions struct {
	key       string
	container containerArg
	set       bool // else the name is read
}

func newMap() *command {
	return &command{
		operands: grammar{"KEY", "[CONTAINER|'']"},
		long: `
Prints the id of the container that has the name KEY, nothing if there is none.
With CONTAINER gives it the name, which an other container loses by that; with
an empty word deletes the name. Where a command wants a CONTAINER, @KEY stands
for the one with that name.`,
		example: "plash-map web 2\nplash-run @web ls /\nplash-map web\nplash-map web ''",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runMap(ctx, mapOptions{key: a.operand(0), container: a.container(1), set: len(a.operands) > 1}, s)
		},
	}
}

func runMap(ctx context.Context, o mapOptions, s streams) error {
	if err := checkName(o.key); err != nil {
		return err
	}
	st, err := openStore("map", s)
	if err != nil {
		return err
	}
	switch {
	case !o.set:
		id, found, err := st.Name(o.key)
		if err != nil || !found {
			return err
		}
		return s.result(id)
	case o.container.empty():
		return st.DeleteName(o.key)
	}
	id, err := o.container.resolve(ctx, st, s)
	if err != nil {
		return err
	}
	return st.SetName(o.key, id)
}

// maxName is how long a name may be, in bytes: as long as that of a file.
const maxName = 255

// checkName refuses names that could not be listed or typed.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return &usageError{what: fmt.Sprintf("KEY has %d bytes, at most %d are possible", len(name), maxName)}
	case strings.ContainsFunc(name, unicode.IsControl):
		return &usageError{what: "KEY has a control character: " + escape(name)}
	}
	return nil
}

type rmOptions struct{ containers []containerArg }

func newRm() *command {
	return &command{
		operands: grammar{"CONTAINER…"},
		long: `
Removes containers, with all that was built on them, and frees what no other
container needs. What runs or is mounted goes on working. If one of the
containers is not there, nothing is removed.`,
		example: "plash-rm 3\nplash-rm @web\nplash-list -q | xargs -r plash-rm",
		run: func(ctx context.Context, a arguments, s streams) error {
			var o rmOptions
			for i := range a.operands {
				o.containers = append(o.containers, a.container(i))
			}
			return runRm(ctx, o, s)
		},
	}
}

func runRm(ctx context.Context, o rmOptions, s streams) error {
	st, err := openStore("rm", s)
	if err != nil {
		return err
	}
	ids := make([]container.ID, 0, len(o.containers))
	for _, arg := range o.containers {
		id, err := arg.resolve(ctx, st, s)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return st.Remove(ctx, ids...)
}
