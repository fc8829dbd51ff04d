package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/program"
)

// LayerDone is the line that goes to the log after each layer that was built.
const LayerDone = "--:"

// A Builder builds plans. Any number of them may work on one store at once: a
// layer is built once, and others that want it wait for it.
type Builder struct {
	Containers *container.Store
	// ResolveImage returns the container that --image NAME means, and imports it
	// if it must.
	ResolveImage func(ctx context.Context, name string) (container.ID, error)
	// RunLayer runs a script, of any length, on top of parent, and returns what it
	// changed. Input is a directory for [runtime.LayerOptions]; "" for none. Its errors are
	// those of [runtime.RunLayer].
	RunLayer func(ctx context.Context, parent container.ID, script, input string) (*cas.Staged, error)
	// Cache has layers of other machines; nil: there is none.
	Cache Cache
	// Stderr gets a line after each layer that was built.
	Stderr io.Writer
	// NoCache builds every layer, whatever there is; later builds will find what
	// was built. Commands set it from the environment, PLASH_NO_CACHE=1.
	NoCache bool
	// Times has the log say how long layers took that took long.
	Times bool
	// Color is for logs that go to a terminal.
	Color bool
}

// maxAttempts is how often a build begins again because others remove what it
// stands on.
const maxAttempts = 3

// Build builds a plan and returns the container; what is built already is
// taken from the cache. Errors are [ErrNoImage], a [*StepError] if a layer's
// script failed, or what the functions of b returned. The layers below the one
// that failed stay cached.
func (b *Builder) Build(ctx context.Context, p *Plan) (container.ID, error) {
	if p.Image == "" {
		return 0, ErrNoImage
	}
	layers, err := p.Layers(ctx)
	if err != nil {
		return 0, err
	}
	for attempt := 1; ; attempt++ {
		id, err := b.ResolveImage(ctx, p.Image)
		if err != nil {
			return 0, err
		}
		for i, l := range layers {
			s := step{b, l, i + 1, len(layers)}
			if id, err = s.build(ctx, id); err != nil {
				break
			}
		}
		// A container that was there a moment ago was removed under our hands.
		if errors.Is(err, container.ErrNotFound) && attempt < maxAttempts {
			continue
		}
		if err != nil {
			return 0, err
		}
		return id, nil
	}
}

// A step is a layer on its way to a container.
type step struct {
	*Builder
	Layer
	number, of int
}

// build returns the container of the layer on top of parent.
func (s *step) build(ctx context.Context, parent container.ID) (container.ID, error) {
	below, err := s.Containers.Get(parent)
	if err != nil {
		return 0, s.wrap(err)
	}
	if s.Layer.NoCache {
		return s.make(ctx, below)
	}
	if s.Builder.NoCache {
		return s.make(ctx, below)
	}
	keys := s.keys(below)
	if id, ok, err := s.lookup(ctx, keys); ok || err != nil {
		return id, err
	}
	unlock, err := s.Containers.LockKey(ctx, keys[0])
	if err != nil {
		return 0, s.wrap(err)
	}
	defer unlock()
	// Who held the lock before may have built it.
	if id, ok, err := s.lookup(ctx, keys); ok || err != nil {
		return id, err
	}
	return s.make(ctx, below)
}

// keys are the keys that the layer may be found under: first the one that says nothing of
// the names of copied files, then, if there are any, the one that does. The layer has the second
// one if the names mattered, which is known when it is built.
func (s *step) keys(below container.Record) []string {
	keys := []string{Key(below.Chain, below.Config, s.Script)}
	if len(s.names) > 0 {
		keys = append(keys, Key(below.Chain, below.Config, s.Script+"# names"+fmt.Sprintf(" %q", s.names)+"\n"))
	}
	return keys
}

func (s *step) lookup(ctx context.Context, keys []string) (container.ID, bool, error) {
	for _, key := range keys {
		id, ok, err := s.Containers.Lookup(key)
		if err != nil {
			return 0, false, s.wrap(err)
		}
		if ok {
			// Only for plash-shrink: whoever may not write to the store may still use
			// what is in it.
			_ = s.Containers.Touch(id)
			return id, true, s.offerFound(ctx, key, id)
		}
	}
	return 0, false, nil
}

// run runs the script, and returns what it changed and the key that stands for it; none if
// it is never to be found again.
func (s *step) run(ctx context.Context, below container.Record) (staged *cas.Staged, keys []string, err error) {
	dir := ""
	if len(s.inputs) > 0 {
		var scratch *cas.Scratch
		if dir, scratch, err = takeInputs(ctx, s.Containers.CAS(), s.inputs); err != nil {
			return nil, nil, s.wrap(err)
		}
		defer func() { err = errors.Join(err, scratch.Remove()) }()
	}
	if staged, err = s.RunLayer(ctx, below.ID, s.colored(s.Script), dir); err != nil {
		return nil, nil, s.failed(ctx, below.ID, err)
	}
	if s.Layer.NoCache {
		return staged, nil, nil
	}
	keys = s.keys(below)
	if _, err := os.Lstat(filepath.Join(dir, namedMark)); len(keys) > 1 && err == nil {
		return staged, keys[1:], nil
	}
	return staged, keys[:1], nil
}

// make makes a container of what the script changed.
func (s *step) make(ctx context.Context, below container.Record) (_ container.ID, err error) {
	from := time.Now()
	config, err := withEntrypoint(below.Config, s.Entrypoint)
	if err != nil {
		return 0, s.wrap(err)
	}
	staged, keys := s.fetch(ctx, below)
	fetched := staged != nil
	if !fetched {
		if staged, keys, err = s.run(ctx, below); staged == nil {
			return 0, err
		}
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	if err != nil {
		return 0, s.wrap(err)
	}
	made, err := s.Containers.Create(ctx, below.ID, staged, container.CreateOptions{
		Origin: container.Origin{Kind: "build", From: s.Display},
		Config: config,
		Keys:   keys,
	})
	if err != nil {
		return 0, s.wrap(err)
	}
	if !fetched {
		err = s.done(time.Since(from))
	}
	s.offer(ctx, keys, made)
	if err != nil {
		return 0, s.wrap(err)
	}
	return made.ID, nil
}

// failed makes a step's error of what RunLayer returned.
func (s *step) failed(ctx context.Context, parent container.ID, err error) error {
	var (
		failed *runtime.CommandError
		exit   *program.ExitError
	)
	step := &StepError{Layer: s.number, Layers: s.of, Command: onlyCommand(s.Display), Parent: parent}
	switch {
	case ctx.Err() != nil:
		return s.wrap(err)
	case errors.As(err, &failed):
		step.Code, step.Err = failed.Code, err
	case errors.As(err, &exit) && exit.Code == program.CodeNotStarted:
		return s.wrap(exit.Err)
	case errors.As(err, &exit):
		// The image has no shell, or none that runs here. The exit code that the
		// error carries is not one of a build.
		step.Code, step.Command, step.Err = exit.Code, "", exit.Err
	default:
		return s.wrap(err)
	}
	return step
}

func (s *step) wrap(err error) error {
	return fmt.Errorf("build layer %d of %d: %w", s.number, s.of, err)
}

// onlyCommand returns the command of a script that has but one line; "" if
// there is more than one, for then the log alone tells which of them failed.
func onlyCommand(script string) string {
	command := ""
	for line := range strings.Lines(strings.TrimPrefix(script, Prologue)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case command != "":
			return ""
		default:
			command = line
		}
	}
	return command
}

// withEntrypoint returns an OCI image configuration that runs the program path
// and is otherwise config. A command that belonged to another entrypoint is
// dropped, as a Dockerfile's ENTRYPOINT does. See the OCI image specification,
// config.md. Without a path, config stays as it is.
func withEntrypoint(config json.RawMessage, path string) (json.RawMessage, error) {
	if path == "" {
		return config, nil
	}
	image, err := object(config)
	if err != nil {
		return nil, err
	}
	run, err := object(image["config"])
	if err != nil {
		return nil, err
	}
	delete(run, "Cmd")
	if run["Entrypoint"], err = json.Marshal([]string{path}); err != nil {
		return nil, err
	}
	if image["config"], err = json.Marshal(run); err != nil {
		return nil, err
	}
	return json.Marshal(image)
}

// object decodes a JSON object one level deep, so that what plash does not know
// is kept as it is. Nothing and null are the empty object.
func object(b json.RawMessage) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("image config: %w", err)
		}
	}
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	return m, nil
}
