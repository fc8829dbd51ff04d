package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/runtime"
)

type buildOptions struct {
	actions []string
	cache   cacheOptions
}

func newBuild() *command {
	var o buildOptions
	c := &command{
		operands: grammar{"ACTIONS…"},
		usage:    "[--cache-from REPO[,REPO…]] [--cache-to REPO] ACTIONS… | --list",
		long: `
Builds a container out of actions and prints its id. An action is --name ARG…
or -x ARG…, its arguments run to the next word that begins with a dash; --list
says what actions there are. The first one names the image to start from, those
that follow make a layer, or several where --layer stands between them.

--include FILE takes actions from a Plashfile: a line --name begins an action, the
lines under it are its arguments, lines that begin with # are comments.

A layer whose script and base are unchanged is taken from the cache, unless
PLASH_NO_CACHE=1 is in the environment. Machines share what they have built by way
of repositories in registries of images (HOST/NAME): --cache-from names such that
are asked for layers, --cache-to one that gets them too. Who may write to them
decides what is built. In the environment they are PLASH_CACHE_FROM and
PLASH_CACHE_TO, also for other commands that build.

PLASH_PROGRESS=plain, tty or none says how
progress is shown, if not by whether standard error is a terminal.`,
		example: "plash-build --image alpine --run 'touch /file' --layer --run 'touch /file2'\n" +
			"plash-build --from debian:bookworm --apt git curl\nplash-build --include ./build.plash\nplash-build --list",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.actions = a.operands
			return runBuild(ctx, o, s)
		},
	}
	o.cache.declare(c.options())
	return c
}

func runBuild(ctx context.Context, o buildOptions, s streams) error {
	plan, err := parseActions(ctx, o.actions, s)
	if err != nil {
		return err
	}
	if plan.List {
		return build.List(output.NewWriter(s.out, standardOutput))
	}
	st, err := openStore("build", s)
	if err != nil {
		return err
	}
	id, err := buildPlan(ctx, st, plan, o.cache, s)
	if err != nil {
		return err
	}
	return s.result(id)
}

func newGetscript() *command {
	return &command{
		operands: grammar{"ACTIONS…"},
		long: `
Prints the shell script that build actions stand for, each layer under a
comment. Nothing is built.`,
		example: "plash-getscript --image alpine --apk git",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runGetscript(ctx, buildOptions{actions: a.operands}, s)
		},
	}
}

func runGetscript(ctx context.Context, o buildOptions, s streams) error {
	plan, err := parseActions(ctx, o.actions, s)
	if err != nil {
		return err
	}
	if plan.List {
		return build.List(output.NewWriter(s.out, standardOutput))
	}
	script, err := plan.Script(ctx)
	if err != nil {
		return err
	}
	return s.print(script)
}

// parseActions reads build actions; words that are none are a usage error.
func parseActions(ctx context.Context, words []string, s streams) (*build.Plan, error) {
	plan, err := build.Parse(words, &lateInput{ctx: ctx, file: s.in})
	return plan, actionsError(err)
}

// actionsError makes a usage error of words that are no actions.
func actionsError(err error) error {
	var usage *build.UsageError
	if errors.As(err, &usage) {
		return &usageError{what: err.Error(), hint: usage.Hint()}
	}
	return err
}

const listHint = "plash-build --list lists the build actions"

// buildActions builds the container that stands as actions in an argument.
func buildActions(ctx context.Context, st *container.Store, actions []string, s streams) (container.ID, error) {
	plan, err := parseActions(ctx, actions, s)
	if err != nil {
		return 0, err
	}
	if plan.List {
		return 0, &usageError{what: "--list makes no container", hint: listHint}
	}
	return buildPlan(ctx, st, plan, cacheOptions{}, s)
}

// isAction reports whether a word begins a build action.
func isAction(word string) bool {
	name, _, _ := strings.Cut(word, "=")
	for _, a := range build.Actions() {
		if slices.Contains(a.Words(), name) {
			return true
		}
	}
	return name == "--import" // known, and refused
}

// buildPlan joins the packages that a build needs: images come from
// importexport, scripts are run by runtime.
func buildPlan(ctx context.Context, st *container.Store, plan *build.Plan, o cacheOptions, s streams) (container.ID, error) {
	d, err := displayFor(s)
	if err != nil {
		return 0, err
	}
	var kept runtime.Kept
	defer kept.Close()
	cache, done, err := o.open(st, d, s)
	if err != nil {
		return 0, err
	}
	defer done()
	b := build.Builder{
		Containers: st,
		Cache:      cache,
		Stderr:     s.err,
		Times:      d != displayNone,
		Color:      d == displayTTY && os.Getenv("NO_COLOR") == "",
		NoCache:    os.Getenv("PLASH_NO_CACHE") == "1",
		ResolveImage: func(ctx context.Context, name string) (container.ID, error) {
			return importexport.Resolve(ctx, st, name, importSettings("build", false, d, s))
		},
		RunLayer: func(ctx context.Context, parent container.ID, script, input string) (*cas.Staged, error) {
			return runtime.RunLayer(ctx, st, parent, runtime.LayerOptions{Script: script, Input: input, Stderr: s.err, Kept: &kept})
		},
	}
	return b.Build(ctx, plan)
}
