package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/bundle"
)

type execOptions struct {
	file string
	args []string
}

func newExec() *command {
	return &command{
		execs:    true,
		builds:   true,
		operands: grammar{"FILE", "[ARG…]"},
		usage:    "FILE [ARG…]",
		long: `
Builds what the Plashfile FILE says and runs its entrypoint with ARG…, as
plash-run does. With the first line "#!/usr/bin/env plash-exec" and execute
permission, a Plashfile is a program.

The entrypoint is what --entrypoint or --entrypoint-script says, else exec=PATH in
a comment among the first lines, else that of the image, whose command follows
where there is no ARG. In the same comment, mount=LIST says what is shared with
the host:

  # plash-exec: exec=/usr/bin/make mount=default,/srv

Relative paths in FILE are meant from the directory that it is in. The exit code is
that of the entrypoint; 125 if plash failed before, as for a build that fails.`,
		example: "plash-exec ./build.plash --version\n./build.plash --version",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runExec(ctx, execOptions{file: a.operand(0), args: a.from(1)}, s)
		},
	}
}

func runExec(ctx context.Context, o execOptions, s streams) error {
	plan, header, err := build.ParseFile(o.file, &lateInput{ctx: ctx, file: s.in})
	if err != nil {
		return actionsError(err)
	}
	return execPlan(ctx, "exec", o.file, plan, header, o.args, s)
}

// execPlan builds a plan and becomes its entrypoint. Command is whose work it is,
// name that of the Plashfile.
func execPlan(ctx context.Context, command, name string, plan *build.Plan, header build.Header, args []string, s streams) error {
	if plan.List {
		return &usageError{what: name + ": --list makes no container", hint: listHint}
	}
	st, err := openStore(command, s)
	if err != nil {
		return err
	}
	id, err := buildPlan(ctx, st, plan, cacheOptions{}, s)
	if err != nil {
		return err
	}
	argv, err := entrypoint(st, id, plan, header, args)
	if errors.Is(err, errNoEntrypoint) {
		err = withHint(fmt.Errorf("%s: %w", name, err), "--entrypoint PATH in it says so, or a line: # plash-exec: exec=PATH")
	}
	if err != nil {
		return err
	}
	resume := yieldSignals(ctx)
	return resume(runtime.Exec(ctx, st, id, runtime.RunOptions{Argv: argv, Mounts: header.Mounts}))
}

var errNoEntrypoint = errors.New("nothing says what to run")

// entrypoint is the command line that a Plashfile stands for.
func entrypoint(st *container.Store, id container.ID, plan *build.Plan, header build.Header, args []string) ([]string, error) {
	for _, path := range []string{plan.Entrypoint(), header.Exec} {
		if path != "" {
			return append([]string{path}, args...), nil
		}
	}
	r, err := st.Get(id)
	if err != nil {
		return nil, err
	}
	c, err := r.ImageConfig()
	if err != nil {
		return nil, err
	}
	argv := bundle.Command(c, args)
	if len(argv) == 0 || len(c.Entrypoint) == 0 && len(args) > 0 {
		return nil, errNoEntrypoint // the arguments of what?
	}
	return argv, nil
}
