package main

import (
	"context"
	"strings"

	"github.com/ihucos/plash/runtime"
	"github.com/spf13/pflag"
)

type runOptions struct {
	container  containerArg
	argv       []string
	mounts     mountList
	upper      string
	work       string
	deescalate bool
}

// mountList is the value of --mount. It is nil as long as the option was not
// given: then the default set is shared.
type mountList []string

func (m *mountList) Type() string   { return "list" }
func (m *mountList) String() string { return strings.Join(*m, ",") }

func (m *mountList) mayBeEmpty() {} // nothing is shared

func (m *mountList) Set(list string) error {
	*m = append(*m, strings.Split(list, ",")...)
	return nil
}

func newRun() *command {
	var o runOptions
	c := &command{
		execs:    true,
		operands: grammar{"CONTAINER", "[CMD…]"},
		usage:    "CONTAINER [--mount LIST|-m LIST] [--upperdir-workdir-pair UP WORK] [--deescalate-sudo] [--] [CMD…]",
		long: `
Runs CMD in CONTAINER as a plain process: with the user, environment, working
directory, network, terminal and signals of the caller. Only the root
filesystem is another one. Variables that the image sets and the caller does not
have are added; PATH stays the caller's, but a CMD that is not in there is looked
for in that of the image too. Without CMD runs the shell of the first line of the
image's /etc/passwd.

Shared with the host are /proc, /sys, /dev, /tmp, /home, the caller's home and
/etc/resolv.conf, or what --mount says. What CMD writes elsewhere is kept in
memory, at most in half of it, and gone when CMD ends; --upperdir-workdir-pair
keeps it on disk.

The exit code is that of CMD, 128+N if signal N killed it, 127 if it was not
found, 126 if it cannot be executed, 125 if plash failed before.`,
		example: "plash-run 2 ls /file\n" +
			"plash-run 2 --mount default,/srv -- ls /srv\n" +
			"plash-run --image alpine --run 'touch /file' -- ls /file",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.argv = a.container(0), a.from(1)
			return runRun(ctx, o, s)
		},
	}
	addMountOption(c.options(), &o.mounts)
	c.options().Var(&pairValue{into: func(a, b string) { o.upper, o.work = a, b }},
		"upperdir-workdir-pair", "keep what is written in the first of the directories `UP WORK`; the second, on the same filesystem, is for overlayfs' own use")
	c.options().BoolVar(&o.deescalate, "deescalate-sudo", false, "run CMD as the user who called sudo")
	return c
}

func addMountOption(flags *pflag.FlagSet, list *mountList) {
	flags.VarP(list, "mount", "m", "share with the host this comma-separated `LIST` of paths and groups (default, host, home, cgroup, …) in place of default")
}

func runRun(ctx context.Context, o runOptions, s streams) error {
	st, id, err := o.container.open(ctx, "run", s)
	if err != nil {
		return err
	}
	resume := yieldSignals(ctx)
	return resume(runtime.Exec(ctx, st, id, runtime.RunOptions{
		Argv:           o.argv,
		Mounts:         o.mounts,
		Upper:          o.upper,
		Work:           o.work,
		DeescalateSudo: o.deescalate,
	}))
}
