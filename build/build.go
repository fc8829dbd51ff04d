// Package build is plash's build language: it turns build actions into shell
// scripts, one for each layer, and builds containers from them with a cache.
//
// # Actions
//
// An action is --name ARG… or, where it has a short form, -x ARG…. Its
// arguments run to the next word that begins with "-". So an argument cannot
// itself begin with "-", except the first one of a long form, which may be
// joined to it: --run=-x. In the text of --run, quoting does it: --run 'rm -- -x'.
// In a Plashfile the arguments are lines.
// What actions there are is in one table, see [Actions].
//
// # Layers
//
// Actions append to the script of the current layer; --layer ends it. A layer
// without actions is dropped. Every script begins with [Prologue] and is meant
// for sh -l in the directory /, with PATH in its environment and umask 022. Nothing of the shell's state (variables, working
// directory) lives on in the next layer.
//
// Invariants:
//   - Every word reaches the script exactly, whatever bytes it is made of. Only
//     NUL cannot be an argument.
//   - The same words give the same scripts, on every machine and at every time:
//     no ids, times or random numbers. What else a script depends on stands in
//     it: values that --import-env takes, digests of what --watch looks at.
//   - A layer is looked up by content alone, see [Key].
//   - The values that --import-env takes are in the script alone, and part of its
//     key: neither the log nor a container's record shows them.
//
// It does not know where images come from and how a script is run: a [Builder]
// is given functions for that.
package build

import (
	"context"
	"fmt"
	"strings"
)

// Prologue is what every layer's script begins with: the first command that
// fails ends it, and each is shown in the log, after PS4.
const Prologue = "PS4='--> '\nset -ex\n"

// A Plan is what build actions ask for.
type Plan struct {
	// Image is what --image named; "" if it was not given.
	Image string
	// List says that --list was given: the actions are to be listed, nothing is
	// to be built.
	List bool

	layers []*layer
}

// A Layer is one layer to be built.
type Layer struct {
	// Script is the whole script, [Prologue] included.
	Script string
	// Display is the script as it may be shown: as Script, without the values that
	// --import-env took.
	Display string
	// NoCache says that the layer is always built, and never found again.
	NoCache bool
	// Entrypoint is the program that the layer makes its container's entrypoint;
	// "" leaves it as it is in the parent. It stands in the script as a comment.
	Entrypoint string

	inputs []input  // what the script finds in its input
	names  []string // of files of the host: what matters only if the script says so
}

// layer is a Layer whose script is not complete yet: what --watch looks at is
// read when the script is wanted.
type layer struct {
	parts      []part
	noCache    bool
	entrypoint string
}

// part is either a piece of script, or what one is made of when it is wanted: a path whose
// digest counts, or files to be copied.
type part struct {
	text  string
	shown string // in place of text where others see it; "": the same
	watch string
	from  position // of the path that is watched
	copy  *copyAction
}

// Entrypoint returns the program that plash-exec runs in what the plan builds;
// "" if the plan does not say.
func (p *Plan) Entrypoint() string {
	for i := len(p.layers) - 1; i >= 0; i-- {
		if e := p.layers[i].entrypoint; e != "" {
			return e
		}
	}
	return ""
}

// Layers returns the layers to be built, bottom first. It reads the host paths
// that --copy and --watch name.
func (p *Plan) Layers(ctx context.Context) ([]Layer, error) {
	layers := make([]Layer, 0, len(p.layers))
	for _, l := range p.layers {
		made := Layer{NoCache: l.noCache, Entrypoint: l.entrypoint}
		var script, display strings.Builder
		script.WriteString(Prologue)
		display.WriteString(Prologue)
		for _, part := range l.parts {
			text, shown := part.text, part.shown
			switch {
			case part.copy != nil:
				var err error
				if text, err = part.copy.script(ctx, &made); err != nil {
					return nil, err
				}
			case part.watch != "":
				sum, err := hashPath(ctx, part.watch)
				if err != nil {
					return nil, fmt.Errorf("%s--watch %s: %w", part.from.prefix(), part.watch, err)
				}
				text = "# watch " + sum.String()
			}
			if shown == "" {
				shown = text
			}
			script.WriteString(text + "\n")
			display.WriteString(shown + "\n")
		}
		made.Script, made.Display = script.String(), display.String()
		layers = append(layers, made)
	}
	return layers, nil
}

// Script returns what plash-getscript prints: the image and the layers' scripts,
// one after the other, each under a comment.
func (p *Plan) Script(ctx context.Context) (string, error) {
	layers, err := p.Layers(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if p.Image != "" {
		fmt.Fprintf(&b, "# image: %s\n", comment(p.Image))
	}
	for i, l := range layers {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# layer %d of %d\n%s", i+1, len(layers), l.Script)
	}
	return b.String(), nil
}
