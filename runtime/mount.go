package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/fusefs"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
)

// MountOptions say how [Mount] mounts a container.
type MountOptions struct {
	// Upper and Work name the upper and work directory of overlayfs; without
	// them the mount is read-only.
	Upper, Work string
}

// Mount attaches a container at a directory. The mount stays until [Unmount] or
// umount(8), which takes everything away that belongs to it.
func Mount(ctx context.Context, st *container.Store, id container.ID, dir string, o MountOptions) error {
	if dir == "" {
		return fmt.Errorf("mount container %v: no directory given", id)
	}
	at, err := filepath.Abs(dir)
	if err == nil {
		err = absUpper(&o.Upper, &o.Work)
	}
	if err != nil {
		return fmt.Errorf("mount container %v: %w", id, err)
	}
	err = withImage(ctx, st, id, func(im *image) error {
		im.log = logFor(im.log)
		m, err := im.openKept(ctx, overlay.Options{Upper: o.Upper, Work: o.Work})
		if err != nil {
			return err
		}
		return errors.Join(m.AttachTo(at), m.Close())
	})
	if errors.Is(err, overlay.ErrUnsupported) || errors.Is(err, fusefs.ErrUnsupported) || errors.Is(err, errNoMounts) {
		err = &hintedError{err, "plash-run, plash-build and plash-with-mount work without mounts; `plash-doctor` says what would help here"}
	}
	return err
}

// Unmount takes away what [Mount] attached at a directory, and nothing else. If the
// server of the mount has died before, the error wraps [fusefs.ErrServer], and the mount
// is gone all the same.
func Unmount(dir string) error {
	if dir == "" {
		return errors.New("unmount: no directory given")
	}
	at, err := mountedAt(dir)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != at, false })
	if err != nil {
		return fmt.Errorf("unmount %s: read mount table: %w", dir, err)
	}
	if len(mounts) == 0 {
		return fmt.Errorf("unmount %s: nothing is mounted there", dir)
	}
	// Of several mounts at one place the last one is on top.
	if m := mounts[len(mounts)-1]; !isContainer(m) {
		return fmt.Errorf("unmount %s: not a mount of plash: %s of type %s", dir, m.Source, m.FSType)
	}
	err = fusefs.Unmount(at)
	if errors.Is(err, unix.EBUSY) {
		return &hintedError{
			err,
			"a process works in there, or something is mounted below: `fuser -vm " + dir + "` shows it",
		}
	}
	return err
}

// mountedAt is the name that a mount table has for a directory. What is mounted
// there need not answer.
func mountedAt(dir string) (string, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(at)
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
		above, err := filepath.EvalSymlinks(filepath.Dir(at))
		return filepath.Join(above, filepath.Base(at)), err
	}
	return real, err
}

// isContainer tells whether a mount is one that plash made: an overlayfs and a FUSE
// filesystem by its source, an index that is mounted alone by being its own source, and a read-only
// unpacked tree, which is a bind mount, by the directory that it shows.
func isContainer(m *mountinfo.Info) bool {
	switch m.FSType {
	case "overlay", "fuse.plash":
		id, ok := strings.CutPrefix(m.Source, "plash-")
		return ok && id != "" && strings.Trim(id, "0123456789") == ""
	case "erofs":
		source := m.Source
		if name, ok := strings.CutPrefix(source, "/dev/loop"); ok {
			b, err := os.ReadFile("/sys/block/loop" + name + "/loop/backing_file")
			if err != nil {
				return false
			}
			source = strings.TrimSpace(string(b))
		}
		return isStorePath(source, indexPath)
	}
	return isStorePath(m.Root, unpackedPath)
}

// isStorePath tells whether path is where package cas has its indexes, or package
// overlay unpacked trees, in some store.
func isStorePath(path, pattern string) bool {
	return regexp.MustCompile(pattern).MatchString(path)
}

const (
	indexPath    = `/index/(sha256|chain)/[0-9a-f]{64}\.erofs$`
	unpackedPath = `/unpacked/((sha256|chain)/[0-9a-f]{64}|empty)$`
)

// WithMount becomes a command on the host whose working directory is a container,
// mounted read-only where nobody but the command and its children sees it. It
// returns as [Exec] does.
func WithMount(ctx context.Context, st *container.Store, id container.ID, argv []string) error {
	if len(argv) == 0 {
		return program.NotStarted(errors.New("no command given"))
	}
	return mountedOrCopied(func() error {
		if needsStage() {
			return becomeStaged(stageConfig{Store: st.CAS().Dir(), ID: id, Look: argv})
		}
		goruntime.LockOSThread()
		return withMountHere(ctx, st, id, argv)
	}, func() error { return lookInCopy(ctx, st, id, argv) })
}

// withMountHere is WithMount on a thread that may mount.
func withMountHere(ctx context.Context, st *container.Store, id container.ID, argv []string) error {
	dir, err := mountPrivately(ctx, st, id)
	if err != nil {
		return program.NotStarted(err)
	}
	if staged != nil {
		if err := ids.DropInheritance(); err != nil {
			return program.NotStarted(err)
		}
	}
	env := program.SetEnv(os.Environ(), "PWD", dir)
	p, err := program.Find(argv, env, "")
	if err != nil {
		return err
	}
	return p.Exec(env)
}

// mountPrivately mounts a container where it becomes the working directory, in a
// mount namespace of this thread.
func mountPrivately(ctx context.Context, st *container.Store, id container.ID) (dir string, err error) {
	err = withImage(ctx, st, id, func(im *image) error {
		im.log = logFor(im.log)
		if err := enterNamespace(); err != nil {
			return err
		}
		m, err := im.open(ctx, overlay.Options{})
		if err != nil {
			return err
		}
		dir, err = im.cas.MountPoint()
		if err == nil {
			err = m.AttachTo(dir)
		}
		return errors.Join(err, m.Close())
	})
	if err == nil {
		err = unix.Chdir(dir)
	}
	return dir, err
}
