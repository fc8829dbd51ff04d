package main

import (
	"context"
	"strings"

	"github.com/ihucos/plash/importexport/progress"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/bundle"
)

type runcOptions struct {
	container containerArg
	argv      []string
	mounts    mountList
	engine    string
	bundle    string
}

func newRunc() *command {
	var o runcOptions
	c := &command{
		execs:    true,
		operands: grammar{"CONTAINER", "[CMD…]"},
		usage:    "CONTAINER [--mount LIST|-m LIST] [--runtime crun|runc] [--bundle DIR] [--] [CMD…]",
		long: `
Runs CMD in CONTAINER under runc or crun, isolated: with processes, IPC, host
name, mounts and users of its own, the capabilities that containers usually have,
and the environment, working directory and user that the image says, but on the
network of the host. CMD follows the entrypoint of the image. Without CMD it is
the command of the image, else a shell.

Nothing is shared with the host but what --mount says. What CMD writes is kept in
memory, at most in half of it, and gone when CMD ends. Where all standard streams
are a terminal, CMD has a terminal of its own.

Plain users need no rights: they are root in there, and other users exist if they
have subordinate ids. The exit code is that of CMD, 128+N if signal N killed it,
127 if it was not found, 126 if it cannot be executed, 125 if plash failed before.

With --bundle nothing is run, but DIR becomes an OCI bundle, for use without plash:
runc run --bundle DIR NAME.`,
		example: "plash-runc 2 id\n" +
			"plash-runc 2 --mount /srv -- ls /srv\n" +
			"plash-runc --image alpine -- ps\n" +
			"plash-runc --bundle ./alpine 1",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.argv = a.container(0), a.from(1)
			return runRunc(ctx, o, s)
		},
	}
	c.options().VarP(&o.mounts, "mount", "m", "share with the host this comma-separated `LIST` of paths and groups (home, host, …)")
	c.options().StringVar(&o.engine, "runtime", "", "the `PROGRAM` that runs containers: "+strings.Join(bundle.Engines(), " or ")+"; by default the first that is installed")
	c.options().StringVar(&o.bundle, "bundle", "", "write an OCI bundle into `DIR`, which is empty or not there, and stop")
	return c
}

func runRunc(ctx context.Context, o runcOptions, s streams) error {
	if o.engine != "" && !bundle.IsEngine(o.engine) {
		return &usageError{what: "--runtime " + o.engine + ": expected " + strings.Join(bundle.Engines(), " or ")}
	}
	st, id, err := o.container.open(ctx, "runc", s)
	if err != nil {
		return err
	}
	ro := runtime.IsolateOptions{Argv: o.argv, Mounts: o.mounts, Engine: o.engine}
	if o.bundle != "" {
		d, err := displayFor(s)
		if err != nil {
			return err
		}
		return progress.Show(d.progress(s), func(m *progress.Meter) error {
			ro.Meter = m
			return runtime.WriteBundle(ctx, st, id, o.bundle, ro)
		})
	}
	resume := yieldSignals(ctx)
	return resume(runtime.Isolate(ctx, st, id, ro))
}
