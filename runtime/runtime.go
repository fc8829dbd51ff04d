// Package runtime runs programs in containers, and mounts containers for
// programs that run outside.
//
// There are four ways:
//   - [Exec] becomes the command ([WithMount] does, on the host): a private mount
//     namespace on the calling thread, the container's root in it, exec. Nobody
//     supervises; the mounts are gone with the last process that uses them.
//   - [RunLayer] runs a command in a pid namespace under an init of plash's own,
//     waits, and packs what it changed. Nothing of it outlives the init, and the
//     init does not outlive its parent.
//   - [Isolate] has runc or crun run a command, in namespaces that end with it or with
//     its caller, whichever comes first.
//   - [Mount] attaches a container at a directory, to stay until [Unmount].
//
// Where nothing can be mounted, the first two work in a copy of the container's tree
// (package copytree), which a program has as its root by chroot(2) or by proot(1).
//
// Invariants:
//   - Nothing that is mounted to run something appears in the mount namespace of
//     the caller, so nothing is left mounted whoever is killed when. What a
//     build leaves is scratch of the store and goes with its next Reclaim; a run
//     leaves nothing.
//   - Paths inside a container are resolved inside it: an absolute symbolic link or
//     a "..", whoever made it, never leads to the host.
//   - Mount points that an image lacks are not written into an upper directory
//     that is kept.
//   - Every descriptor opened here is close-on-exec. Those of the caller pass
//     through Exec and WithMount, and the lock of a copy does.
//
// But for Isolate nothing is isolated: apart from the root filesystem a process in a
// container is what it would be outside. The package does not know layers, blobs and backends from
// within; package overlay does. What stands on its own lies below it: what is shared with the host
// (package share), commands and why they do not start (program), users and their ids (ids), and
// what it takes to run others (proot, reaper, handover, rootemu, bundle). Programs that call it must call
// [MaybeInit] first thing in main.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/fusefs"
	"github.com/ihucos/plash/overlay"
)

// A CommandError says that a command ran and did not succeed.
type CommandError struct {
	Code   int            // the exit code; 128+Signal if a signal killed it
	Signal syscall.Signal // 0 if none did
}

func (e *CommandError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("command killed by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("command failed with exit code %d", e.Code)
}

// An InterruptError says that work was given up because the process was told to
// end.
type InterruptError struct {
	Signal syscall.Signal
}

func (e *InterruptError) Error() string { return fmt.Sprintf("interrupted (%v)", e.Signal) }

// ExitCode is the code that a shell shows for a process killed by the signal.
func (e *InterruptError) ExitCode() int { return 128 + int(e.Signal) }

// A hintedError is an error with a way out of it.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// Hint says what the user can do.
func (e *hintedError) Hint() string { return e.hint }

// An image is a container that was looked up: what is needed to mount it.
type image struct {
	id     container.ID
	cas    *cas.Store
	layers []overlay.Layer // bottom first
	config container.ImageConfig
	log    *os.File // where a server writes what is damaged, or nil

	host   *probed         // what is known not to work here; nil: not looked up yet
	work   bool            // it is, or will be, worked in
	served *fusefs.Mount   // looked at, and kept for the next open
	kept   *overlay.Layers // what is mounted by EROFS, from one open to the next
	own    overlay.Layers  // is kept, unless someone else keeps it
}

// withImage looks a container up and calls f, which mounts it, with the store's
// lock held, so that nothing of it is collected in between.
func withImage(ctx context.Context, st *container.Store, id container.ID, f func(*image) error) (err error) {
	unlock, err := st.CAS().LockShared(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	records, err := st.Chain(id)
	if err != nil {
		return err
	}
	_ = st.Touch(id) // who may only read the store does not count
	im := &image{id: id, cas: st.CAS(), layers: make([]overlay.Layer, len(records)), log: os.Stderr}
	im.kept = &im.own
	defer func() { err = errors.Join(err, im.close()) }()
	for i, r := range records {
		im.layers[i] = overlay.Layer{Digest: r.Layer, Packed: r.Origin.Packed()}
	}
	if len(records) > 0 {
		if im.config, err = records[len(records)-1].ImageConfig(); err != nil {
			return err
		}
	}
	return f(im)
}
