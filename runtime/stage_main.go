package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	goruntime "runtime"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/handover"
	"github.com/ihucos/plash/runtime/program"
)

// staged is what this process was told, if it is a stage: then it is in namespaces of plash's
// own.
var staged *stageConfig

// A layerConfig is LayerOptions for a stage, which has its files as standard streams.
type layerConfig struct {
	Script       string
	Argv         []string
	Env          []string
	Mounts       []string
	Input        string
	Stdin        bool
	IgnoreStatus bool
}

func (o *LayerOptions) config() *layerConfig {
	return &layerConfig{o.Script, o.Argv, o.Env, o.Mounts, o.Input, o.Script == "" || o.Stdin != nil, o.IgnoreStatus}
}

// files gives the standard streams of a stage for a layer.
func (o *LayerOptions) files() stageFiles {
	files := stageFiles{stdin: o.Stdin, stdout: o.Stdout, stderr: o.Stderr}
	if files.stderr == nil {
		files.stderr = os.Stderr
	}
	if o.Script == "" {
		if files.stdin == nil {
			files.stdin = os.Stdin
		}
		if files.stdout == nil {
			files.stdout = os.Stdout
		}
	}
	if files.stdout == nil {
		files.stdout = files.stderr
	}
	return files
}

func (c *layerConfig) options() LayerOptions {
	o := LayerOptions{
		Script: c.Script, Argv: c.Argv, Env: c.Env, Mounts: c.Mounts, Input: c.Input, IgnoreStatus: c.IgnoreStatus,
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if c.Stdin {
		o.Stdin = os.Stdin
	}
	return o
}

// The signal at the parent's death is one thread's (prctl(2), PR_SET_PDEATHSIG): that which was
// forked. A stage that becomes its command does so on this one, or the command would go on when
// plash-run is killed. Go keeps main on it if an init function locks it there.
func init() {
	if isStage() {
		goruntime.LockOSThread()
	}
}

func isStage() bool { return len(os.Args) == 4 && os.Args[0] == stageName }

// maybeStage is MaybeInit for stages.
func maybeStage() {
	if !isStage() {
		return
	}
	files := handover.Taken(os.Args[1:], "stage") // three, as stage.start has them
	var c stageConfig
	c.told = json.NewDecoder(files[0])
	if err := c.told.Decode(&c); err != nil {
		os.Exit(program.CodeNotStarted) // the parent is gone, or knows better
	}
	staged = &c
	err := c.do(files[2])
	if err := json.NewEncoder(files[1]).Encode(outcomeOf(err)); err != nil {
		os.Exit(program.CodeNotStarted)
	}
	os.Exit(0)
}

// do does what a stage is for. Tar is where a layer's tar goes.
func (c *stageConfig) do(tar *os.File) error {
	ctx := context.Background()
	blobs, err := cas.Open(c.Store)
	if err != nil {
		return err
	}
	st, err := container.Open(blobs, overlay.CollectUnpacked)
	if err != nil {
		return err
	}
	switch {
	case c.Run != nil:
		return execHere(ctx, st, c.ID, *c.Run)
	case c.Look != nil:
		return withMountHere(ctx, st, c.ID, c.Look)
	case c.Layer != nil:
		if err := blobs.Reclaim(); err != nil {
			return err
		}
		return runLayer(ctx, st, c.ID, c.Layer.options(), func(ctx context.Context, upper *os.File, flat *overlay.Flat) error {
			return overlay.Pack(ctx, tar, upper, overlay.PackOptions{Upper: true, Flat: flat})
		})
	case c.Isolated != nil:
		return c.Isolated.run(ctx, st, c.ID, c.told)
	case c.Clean:
		return blobs.Reclaim()
	case c.Examine:
		return examineStaged(ctx, blobs, tar)
	}
	return errors.New("a stage with nothing to do")
}
