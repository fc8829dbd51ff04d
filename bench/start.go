package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// times is how often a short command is run for one measurement.
const times = 50

// repeat makes one measurement of many runs of a short command, by a shell loop,
// whose own cost is the same for all.
func (b *bench) repeat(env []string, command string) func() error {
	return func() error {
		return b.command(env, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s || exit 1; i=$((i+1)); done", times, command))
	}
}

// perRun turns the time of a loop into that of one run.
func perRun(cs []*contender) {
	for _, c := range cs {
		c.per = times
	}
}

// benchRun measures the start of a command, warm.
func benchRun(b *bench) error {
	store := filepath.Join(b.dir, "store")
	env := []string{"PLASH_DATA=" + store}
	id, err := b.output(env, b.plash, "import-tar", b.tar)
	if err != nil {
		return err
	}
	defer os.RemoveAll(store)
	tree := filepath.Join(b.dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := b.command(nil, "tar", "-x", "-C", tree, "-f", b.tar); err != nil {
		return err
	}
	var layers []string
	for i := range 99 {
		layers = append(layers, "--layer", "--run", fmt.Sprintf("'echo %d > /layer%d'", i, i))
	}
	deep, err := b.output(env, "sh", "-c", fmt.Sprintf("%s build --image %s %s 2>/dev/null", b.plash, id, strings.Join(layers[1:], " ")))
	if err != nil {
		return err
	}
	empty := &contender{name: "an empty Go program", do: b.repeat(nil, b.empty)}
	cs := []*contender{
		empty,
		{name: "chroot DIR true", do: b.repeat(nil, fmt.Sprintf("chroot %s true", tree))},
	}
	bwrap := &contender{name: "bwrap --bind DIR / --dev /dev --proc /proc true", do: b.repeat(nil, fmt.Sprintf("bwrap --bind %s / --dev /dev --proc /proc true", tree))}
	if have("bwrap") {
		cs = append(cs, bwrap)
	}
	one := &contender{name: "plash run ID true, one layer", do: b.repeat(env, fmt.Sprintf("%s run %s true", b.plash, id))}
	cs = append(cs, one,
		&contender{name: "plash run ID true, 100 layers", do: b.repeat(env, fmt.Sprintf("%s run %s true", b.plash, deep))})
	if have("runc") {
		run, err := b.runcBundle(tree)
		if err != nil {
			return err
		}
		cs = append(cs, &contender{name: "runc run", do: b.repeat(nil, run)})
	}
	if err := b.race(cs); err != nil {
		return err
	}
	perRun(cs)
	if err := b.report(timesTable("Start of a command, warm", cs, empty, bwrap, one)); err != nil {
		return err
	}
	return b.benchUserRun()
}

// runcBundle makes a bundle for the tree that runs true, and returns the command line.
func (b *bench) runcBundle(tree string) (string, error) {
	bundle := filepath.Join(b.dir, "bundle")
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		return "", err
	}
	script := fmt.Sprintf(`cd '%s' && rm -f config.json && runc spec &&
		sed -i 's|"terminal": true|"terminal": false|; s|"sh"|"true"|; s|"path": "rootfs"|"path": "%s"|' config.json`, bundle, tree)
	if err := b.command(nil, "sh", "-c", script); err != nil {
		return "", err
	}
	return fmt.Sprintf("runc --root '%s/state' run --bundle '%s' plash-bench-$$-$i", bundle, bundle), nil
}

// stepLayers is how many layers the long builds have.
const stepLayers = 129

// benchBuild measures a build of which every layer is cached, and the steps of one of which
// none is.
func benchBuild(b *bench) error {
	store := filepath.Join(b.dir, "store")
	env := []string{"PLASH_DATA=" + store}
	defer os.RemoveAll(store)
	id, err := b.output(env, b.plash, "import-tar", b.tar)
	if err != nil {
		return err
	}
	few := fmt.Sprintf("%s build --image %s --run 'touch /a' --layer --run 'touch /b'", b.plash, id)
	var steps strings.Builder
	for i := range stepLayers {
		fmt.Fprintf(&steps, " --layer --run 'touch /step%d'", i)
	}
	idle := fmt.Sprintf("%s build --image %s%s", b.plash, id, strings.Repeat(" --layer --run true", stepLayers))
	many := fmt.Sprintf("%s build --image %s %s", b.plash, id, strings.TrimPrefix(steps.String(), " --layer"))
	for _, warm := range []string{few, many} {
		if err := b.command(env, "sh", "-c", warm); err != nil {
			return err
		}
	}
	empty := &contender{name: "an empty Go program", do: b.repeat(nil, b.empty)}
	cs := []*contender{
		empty,
		{name: "plash build, two layers, cached", do: b.repeat(env, few+" >/dev/null")},
		{name: fmt.Sprintf("plash build, %d layers, cached", stepLayers), do: b.repeat(env, many+" >/dev/null")},
	}
	step := &contender{name: "a step of plash build, true, not cached", do: func() error {
		return b.command(append(env, "PLASH_NO_CACHE=1"), "sh", "-c", idle+" >/dev/null 2>&1")
	}}
	if err := b.race(append(cs, step)); err != nil {
		return err
	}
	perRun(cs)
	step.per = stepLayers
	cs = append(cs, step)
	return b.report(timesTable("A build", cs, empty))
}
