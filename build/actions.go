package build

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// An Action is what a user is told about a build action.
type Action struct {
	Name    string   // without dashes
	Short   string   // one letter, without dash; "" for none
	Aliases []string // other names, without dashes
	Args    string   // as in a usage line; "" for none
	Help    string   // one line
	Group   string   // a heading
}

// The headings of the list of actions, in the order in which they are shown.
const (
	groupMain     = "building"
	groupFiles    = "files"
	groupCache    = "cache"
	groupPackages = "package managers"
	groupImages   = "image and packages"
)

// action is an Action and what it does.
type action struct {
	Action
	min, max int // how many arguments; max < 0: any number
	eval     func(e *evaluator, s statement) error
	hidden   bool // known, but not to be listed
	text     textKind
}

// textKind says what the lines under an action are in a Plashfile.
type textKind int

const (
	noText     textKind = iota // words, between which comments may stand
	scriptText                 // shell script
	fileText                   // the content of a file
)

// A table is the actions that are known, in the order in which they are listed.
type table struct {
	list    []*action
	byLong  map[string]*action // by name and alias
	byShort map[string]*action
}

func (t *table) add(a *action) {
	t.list = append(t.list, a)
	t.byLong[a.Name] = a
	for _, alias := range a.Aliases {
		t.byLong[alias] = a
	}
	if a.Short != "" {
		t.byShort[a.Short] = a
	}
}

// lookup finds an action by what stands on a command line; nil if there is none.
func (t *table) lookup(written string) *action {
	if long, ok := strings.CutPrefix(written, "--"); ok {
		return t.byLong[long]
	}
	return t.byShort[strings.TrimPrefix(written, "-")]
}

// bare finds an action by its name without dashes; nil if there is none.
func (t *table) bare(name string) *action {
	if a := t.byLong[name]; a != nil {
		return a
	}
	return t.byShort[name]
}

// builtins returns a new table of the actions that plash itself has.
func builtins() *table {
	t := &table{byLong: map[string]*action{}, byShort: map[string]*action{}}
	act := func(group, name, args, help string, min, max int, eval func(*evaluator, statement) error) *action {
		a := &action{
			Action: Action{Name: name, Args: args, Help: help, Group: group},
			min:    min, max: max, eval: eval,
		}
		return a
	}
	also := func(a *action, short string, aliases ...string) *action {
		a.Short, a.Aliases = short, aliases
		return a
	}
	text := func(kind textKind, a *action) *action {
		a.text = kind
		return a
	}
	for _, a := range []*action{
		also(act(groupMain, "image", "NAME", "the base image, before anything that runs in it", 1, 1, (*evaluator).image), "i", "from"),
		text(scriptText, also(act(groupMain, "run", "LINE…", "lines of shell script", 1, -1, (*evaluator).run), "x")),
		also(act(groupMain, "layer", "[ACTION ARG…]", "end the layer here; with an action, one layer for each of its arguments", 0, -1, (*evaluator).layer), "l"),
		also(act(groupMain, "include", "FILE", "actions from a Plashfile", 1, 1, (*evaluator).include), "I", "eval-file"),
		act(groupMain, "eval-string", "STRING", "actions from a string, written as in a Plashfile", 1, 1, (*evaluator).evalString),
		act(groupMain, "eval-stdin", "", "actions from standard input, written as in a Plashfile", 0, 0, (*evaluator).evalStdin),
		act(groupMain, "map", "ACTION ARG…", "the action once for each argument", 1, -1, (*evaluator).mapArgs),
		act(groupMain, "comment", "[WORD…]", "nothing", 0, -1, (*evaluator).comment),
		act(groupMain, "namespace", "NAME", "a new layer, and from here on layers cached apart from those of other names", 1, 1, (*evaluator).enterNamespace),
		act(groupMain, "align-cwd", "", "go to the caller's working directory, for the rest of the layer", 0, 0, (*evaluator).alignCwd),
		act(groupMain, "devinit", "", "make what the image's own /dev lacks of a minimal one", 0, 0, (*evaluator).devinit),
		act(groupMain, "import-env", "NAME[:AS]…", "export host variables, where they are set, for the rest of the layer", 1, -1, (*evaluator).importEnv),
		act(groupMain, "entrypoint", "PATH", "what plash-exec and an exported image run", 1, 1, (*evaluator).setEntrypoint),
		text(fileText, act(groupMain, "entrypoint-script", "LINE…", "write /entrypoint, and make it the entrypoint", 1, -1, (*evaluator).entrypointScript)),
		act(groupMain, "list", "", "list the actions", 0, 0, (*evaluator).list),
		text(fileText, act(groupFiles, "write-file", "PATH [LINE…]", "write lines to a file, in place of what is in it", 1, -1, (*evaluator).writeFile)),
		text(fileText, act(groupFiles, "write-script", "PATH [LINE…]", "write lines to an executable file", 1, -1, (*evaluator).writeScript)),
		act(groupFiles, "copy", "SRC… DST", "files and directories of the host to a path in the image", 2, -1, (*evaluator).copyFiles),
		also(act(groupCache, "watch", "PATH…", "build the layer again when the content of host paths changes", 1, -1, (*evaluator).watch), "", "hash-path"),
		also(act(groupCache, "bust-cache", "", "always build the layer", 0, 0, (*evaluator).bustCache), "", "invalidate-layer"),
		act(groupPackages, "defpm", "NAME LINE…", "define a package manager; {} in its lines stands for the packages", 2, -1, (*evaluator).defpm),
	} {
		t.add(a)
	}
	t.add(&action{Action: Action{Name: "import"}, max: -1, eval: (*evaluator).importModule, hidden: true})
	for _, m := range managers {
		t.add(m.action())
	}
	for _, f := range distributions {
		t.add(f.action())
	}
	return t
}

// Actions returns the build actions, in the order in which they are listed.
func Actions() []Action {
	var list []Action
	for _, a := range builtins().list {
		if !a.hidden {
			list = append(list, a.Action)
		}
	}
	return list
}

// Words returns the action's names as they are written on a command line, the
// long one first.
func (a Action) Words() []string {
	words := []string{"--" + a.Name}
	for _, alias := range a.Aliases {
		words = append(words, "--"+alias)
	}
	if a.Short != "" {
		words = append(words, "-"+a.Short)
	}
	return words
}

// List writes the build actions with a line each, under their headings.
func List(w io.Writer) error {
	const column = 40
	var b strings.Builder
	group := ""
	for _, a := range Actions() {
		if a.Group != group {
			if group != "" {
				b.WriteByte('\n')
			}
			group = a.Group
			b.WriteString(group + ":\n")
		}
		left := "  " + strings.TrimSpace(strings.Join(a.Words(), ", ")+" "+a.Args)
		pad := max(2, column-utf8.RuneCountInString(left))
		b.WriteString(left + strings.Repeat(" ", pad) + a.Help + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("list actions: %w", err)
	}
	return nil
}
