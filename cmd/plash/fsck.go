package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
)

type fsckOptions struct{ repair bool }

func newFsck() *command {
	var o fsckOptions
	c := &command{
		usage: "[--repair]",
		long: `
Looks at everything in the store: every layer is read and held against its
digest, every index against its layers, every container against its parent and
its layer. Prints a line for each damage, and fails if there is one. Others may
use the store meanwhile.

With --repair, what is derived is derived anew: indexes, and what says where
containers are. The rest is put aside, in a directory of "quarantine" in the
store: layers that are not what their digest says, and containers that have lost
their layer or their record, with what stands on them. Nothing is deleted there
but by plash-purge. Fails if a damage is left.

What has been unpacked from layers (backend unpack, copies) is not looked at.`,
		example: "plash-fsck\nplash-fsck --repair",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runFsck(ctx, o, s)
		},
	}
	c.options().BoolVar(&o.repair, "repair", false, "derive anew what can be derived, put the rest aside")
	return c
}

var errDamagedStore = errors.New("the store is damaged")

func runFsck(ctx context.Context, o fsckOptions, s streams) error {
	d, err := displayFor(s)
	if err != nil {
		return err
	}
	st, err := openStore("fsck", s)
	if err != nil {
		return err
	}
	var found *container.Checked
	err = progress.Show(d.progress(s), func(m *progress.Meter) (err error) {
		found, err = st.Check(ctx, container.CheckOptions{Repair: o.repair, Expect: m.Expect, Count: m.Add})
		return err
	})
	if err != nil {
		return err
	}
	if err := s.print(damages(found)); err != nil {
		return err
	}
	fmt.Fprintf(s.err, "looked at %d containers, %d layers, %d indexes\n", found.Containers, found.Blobs, found.Indexes)
	if found.Aside != "" {
		fmt.Fprintf(s.err, "put aside in %s\n", escape(found.Aside))
	}
	left := found.Left()
	if left == 0 {
		return nil
	}
	err = fmt.Errorf("%w in %d places", errDamagedStore, left)
	if left == 1 {
		err = fmt.Errorf("%w in one place", errDamagedStore)
	}
	if !o.repair {
		return withHint(err, "plash-fsck --repair derives anew what can be derived, and puts the rest aside")
	}
	return err
}

// damages has a line for each damage.
func damages(found *container.Checked) string {
	var b strings.Builder
	for _, d := range found.Damages {
		b.WriteString(oneLine(d.String()) + "\n")
	}
	return b.String()
}
