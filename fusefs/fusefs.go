// Package fusefs shows containers by FUSE, where the kernel's EROFS or the right to
// mount it is missing; and where overlayfs is, they can be written to all the same, as
// package union does it.
//
// [Open] starts a process that serves the merged index of a container's layers, which
// is mapped into its memory, and the layers' blobs, and gives a mount of it that is
// attached nowhere yet. Who calls it has to call [MaybeServe] first thing in main.
//
// Invariants:
//   - Node ids are the index's inode numbers. There is no table of nodes and nothing
//     to be forgotten, so that mounting costs the same whatever the image's size, and
//     memory stays flat.
//   - Everything is immutable, and the kernel is told so: it keeps entries (also that
//     there is none), attributes, listings, links and data, and asks once.
//   - The server lives as long as its mount is used, by whatever mount namespace, open
//     file or working directory, and no longer. It is no child of who started it, and
//     keeps nothing of him: no terminal, no descriptor, no mount.
//   - What the index says is checked before use. What is damaged, there or in a
//     blob, is EIO for who reads it and one line for the log; never a crash, zeros or
//     other data.
//
// It does not choose when to be used, and takes no locks: the caller holds the store's
// shared lock while it calls Open.
package fusefs

import (
	"errors"
	"os"

	"github.com/ihucos/plash/cas"
)

// ErrUnsupported is wrapped by errors where the host, or what it lets this process
// do, is the reason that there can be no FUSE mount: another backend may work.
var ErrUnsupported = errors.New("FUSE is not available or not permitted here")

// ErrServer is wrapped by errors about a mount whose server has ended before it: all
// that can be done with such a mount is to take it away.
var ErrServer = errors.New("the server of the mount has died")

// Options say how to mount.
type Options struct {
	// Upper and Work are the directories, on one filesystem, of a writable union:
	// package union. Without them the mount is read-only.
	Upper, Work string
	// Volatile lets the union leave out all syncing, where Upper ends with the mount
	// or is packed right after it.
	Volatile bool
	// Stacked says that the kernel's overlayfs may go on the mount.
	Stacked bool
	// Places are shown where no layer has anything.
	Places []cas.Place
	// Source is what mount tables show as source, beside the type "fuse.plash".
	Source string
	// Log is where the server writes a line about each file that is found damaged. A
	// pipe that is given here stays open as long as the mount is used. Nil: nowhere.
	Log *os.File
}

const (
	fsType  = "fuse"
	subtype = "plash"
	// maxRequest is how much the kernel may ask for at once, in bytes.
	maxRequest = 256 << 10
)
