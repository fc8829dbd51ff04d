package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/ihucos/plash/runtime"
)

type mountOptions struct {
	container containerArg
	dir       string
	upper     string
	work      string
}

func newMount() *command {
	var o mountOptions
	c := &command{
		operands: grammar{"CONTAINER", "DIR"},
		usage:    "[--upperdir UP --workdir WORK] CONTAINER DIR",
		long: `
Mounts the root filesystem of CONTAINER at DIR: read-only, or with an upper and
a work directory of overlayfs, which must be on one filesystem; what is written
is kept in UP. plash-umount DIR, or umount DIR, takes the mount away with
everything behind it.`,
		example: "plash-mount 2 /mnt\nplash-mount --upperdir up --workdir work 2 /mnt\nplash-umount /mnt",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.dir = a.container(0), a.operand(1)
			return runMount(ctx, o, s)
		},
	}
	c.options().StringVar(&o.upper, "upperdir", "", "keep what is written in the directory `UP`")
	c.options().StringVar(&o.work, "workdir", "", "the directory `WORK` for overlayfs' own use, with --upperdir")
	return c
}

func runMount(ctx context.Context, o mountOptions, s streams) error {
	if (o.upper == "") != (o.work == "") {
		return &usageError{what: "--upperdir and --workdir belong together"}
	}
	st, id, err := o.container.open(ctx, "mount", s)
	if err != nil {
		return err
	}
	return runtime.Mount(ctx, st, id, o.dir, runtime.MountOptions{Upper: o.upper, Work: o.work})
}

type umountOptions struct{ dir string }

func newUmount() *command {
	return &command{
		operands: grammar{"DIR"},
		long:     "Takes away the mount that plash-mount made at DIR, with everything behind it.",
		example:  "plash-umount /mnt",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runUmount(ctx, umountOptions{dir: a.operand(0)}, s)
		},
	}
}

func runUmount(_ context.Context, o umountOptions, _ streams) error {
	if _, err := os.Lstat(o.dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", o.dir, syscall.ENOENT)
	}
	return runtime.Unmount(o.dir)
}

type withMountOptions struct {
	container containerArg
	argv      []string
}

func newWithMount() *command {
	return &command{
		execs:    true,
		operands: grammar{"CONTAINER", "CMD…"},
		usage:    "CONTAINER [--] CMD…",
		long: `
Runs CMD on the host, with the root filesystem of CONTAINER mounted as its
working directory. The mount is read-only, is seen by CMD and its children
alone, and goes with the last of them. The exit code is that of CMD, as for
plash-run.`,
		example: "plash-with-mount 2 du -sh .\nplash-with-mount --image alpine -- cat etc/os-release",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runWithMount(ctx, withMountOptions{container: a.container(0), argv: a.from(1)}, s)
		},
	}
}

func runWithMount(ctx context.Context, o withMountOptions, s streams) error {
	st, id, err := o.container.open(ctx, "with-mount", s)
	if err != nil {
		return err
	}
	resume := yieldSignals(ctx)
	return resume(runtime.WithMount(ctx, st, id, o.argv))
}
