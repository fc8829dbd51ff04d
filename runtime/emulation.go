package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/rootemu"
	"github.com/ihucos/plash/runtime/share"
)

// An emulation is what a step has where its user namespace has one user: see package rootemu.
type emulation struct {
	layers []overlay.Layer
	memory string // the file in which the init leaves what was asked for; "": there is no emulation
}

// An emulateConfig tells an init to emulate root.
type emulateConfig struct {
	Store  string
	Layers []digest.Digest
	Upper  string // the upper directory
	Memory string // where to leave what was asked for
}

// emulate has root emulated in the step, if it is in a namespace with one user.
func (s *step) emulate(ctx context.Context, im *image) error {
	if staged == nil || !staged.Single {
		return nil
	}
	s.emulation = emulation{layers: im.layers, memory: filepath.Join(s.scratch.Path(), "asked-for")}
	binds, err := s.presets(ctx, im)
	if err != nil {
		return err
	}
	s.config.Binds = append(s.config.Binds[:len(s.config.Binds):len(s.config.Binds)], binds...)
	s.config.Emulate = &emulateConfig{Store: im.cas.Dir(), Layers: im.digests(), Memory: s.emulation.memory}
	return nil
}

// presets makes files for the package managers that the image has, and binds them there for
// the time of the step.
func (s *step) presets(ctx context.Context, im *image) (binds []share.Bind, err error) {
	m, err := im.look(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, im.done(m)) }()
	dir := filepath.Join(s.memory, "presets")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make presets: %w", err)
	}
	some, err := rootemu.Presets(dir, func(path string) bool {
		fd, err := share.OpenInside(m.FD(), path, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	})
	if err != nil || !some {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			binds = append(binds, share.Bind{Path: path[len(dir):], From: path})
		}
		return err
	})
	return binds, err
}

// flat describes the upper directory for the packer, nil if its files have owners.
func (e *emulation) flat(ctx context.Context, s *cas.Store) (_ *overlay.Flat, err error) {
	if e.memory == "" {
		return nil, nil
	}
	f, err := os.Open(e.memory)
	if err != nil {
		return nil, fmt.Errorf("read what was asked for: %w", err)
	}
	defer f.Close()
	m, err := rootemu.Read(f)
	if err != nil {
		return nil, err
	}
	return overlay.OpenFlat(ctx, s, e.layers, m.Recall)
}

// An emulator is the init's side.
type emulator struct {
	upper, out *os.File
	flat       *overlay.Flat
	running    *rootemu.Emulation
}

// prepare opens what is needed of the host, before the container's root is entered.
func (c *emulateConfig) prepare() (*emulator, error) {
	e := &emulator{}
	var err error
	if e.upper, err = os.Open(c.Upper); err != nil {
		return nil, fmt.Errorf("emulate root: %w", err)
	}
	if e.out, err = os.OpenFile(c.Memory, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("emulate root: %w", err)
	}
	s, err := cas.Open(c.Store)
	if err != nil {
		return nil, err
	}
	layers := make([]overlay.Layer, len(c.Layers))
	for i, d := range c.Layers {
		layers[i].Digest = d
	}
	e.flat, err = overlay.OpenFlat(context.Background(), s, layers, nil)
	return e, err
}

// fork forks under the emulation.
func (e *emulator) fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	o := rootemu.Options{Upper: e.upper, OwnerBelow: e.flat.OwnerBelow}
	e.running = rootemu.Fork(o, func() { pid, err = syscall.ForkExec(path, argv, attr) })
	if b := e.running.Blind; b != nil {
		fmt.Fprintf(os.Stderr, "plash: warning: owners and devices are not remembered: %v\n", b)
	}
	return pid, err
}

// finish leaves what was asked for.
func (e *emulator) finish() error {
	return errors.Join(e.running.Memory.Write(e.out), e.out.Close())
}
