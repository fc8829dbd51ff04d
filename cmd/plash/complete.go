package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completions are the words that could stand next, with a description each.
type completions struct {
	words [][2]string
	files bool // file names could stand there too
}

func (c *completions) add(word, description string) {
	c.words = append(c.words, [2]string{word, description})
}

// answerCompletion prints what could stand in place of the last of words, the
// one that is being typed, in the form that cobra's scripts read: a line for
// each, a tab before the description, and a last line with a colon and a number
// that says what the shell shall do.
func answerCompletion(s streams, words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	prefix := words[len(words)-1]
	could := complete(words)
	var b strings.Builder
	for _, w := range could.words {
		if strings.HasPrefix(w[0], prefix) && w[0] == escape(w[0]) {
			fmt.Fprintf(&b, "%s\t%s\n", w[0], escape(w[1]))
		}
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if could.files {
		directive = cobra.ShellCompDirectiveDefault
	}
	fmt.Fprintf(&b, ":%d\n", directive)
	return s.print(b.String())
}

func complete(words []string) completions {
	var could completions
	if len(words) == 1 {
		for _, e := range commands() {
			could.add(e.name, e.summary)
		}
		return could
	}
	c := newCommand(words[0])
	if c == nil {
		return could
	}
	c.addHelpOption()
	typed, current := words[1:len(words)-1], words[len(words)-1]
	if c.operands.actions() {
		could.addActions(typed, current)
		if strings.HasPrefix(current, "-") || len(typed) == 0 {
			could.addOptions(c.options())
		}
		return could
	}
	a, state := c.operands.reach(c.options(), typed)
	switch {
	case state == inOption:
		could.files = true
	case state == inActions:
		could.addActions(a.actions, current)
	case state == inCommand:
		could.files = true
	case strings.HasPrefix(current, "-") && state == inOptions:
		could.addOptions(c.options())
		if c.operands.isContainer(len(a.operands)) {
			could.addActions(nil, current)
		}
	default:
		could.addOperand(c, len(a.operands))
	}
	return could
}

// Where in a command line a word would stand.
type place int

const (
	inOptions place = iota // an option or an operand
	inOperands
	inOption  // the value of an option
	inActions // among build actions
	inCommand // in a command line taken as it is
)

// reach reads the words before the one that is being typed, as parse does, and
// says where that one stands.
func (g grammar) reach(flags *pflag.FlagSet, words []string) (arguments, place) {
	a, err := g.split(flags, words)
	last := ""
	if len(words) > 0 {
		last = words[len(words)-1]
	}
	dashes := false
	for _, word := range words {
		dashes = dashes || word == "--"
	}
	flag, value := lookup(flags, last)
	switch {
	case a.actions != nil && !dashes:
		return a, inActions
	case len(g) > 0 && g.command(len(g)-1) && len(a.operands) >= len(g),
		dashes && g.command(len(a.operands)):
		return a, inCommand
	case dashes:
		return a, inOperands
	case err != nil && flag != nil && value == "" && flag.NoOptDefVal == "":
		return a, inOption
	}
	return a, inOptions
}

// addActions adds what could follow the words of build actions: the next action, or what the
// last one takes.
func (c *completions) addActions(typed []string, current string) {
	if strings.HasPrefix(current, "-") || len(typed) == 0 {
		for _, a := range build.Actions() {
			for _, word := range a.Words() {
				c.add(word, a.Help)
			}
		}
		return
	}
	action, args := lastAction(typed)
	c.addArgument(action, args)
}

// lastAction finds the action that the last of typed words belongs to, without dashes, and its
// arguments so far.
func lastAction(typed []string) (action string, args []string) {
	for i := len(typed) - 1; i >= 0; i-- {
		if name, arg, joined := strings.Cut(typed[i], "="); isOption(name) {
			if args = typed[i+1:]; joined {
				args = append([]string{arg}, args...)
			}
			return strings.TrimLeft(name, "-"), args
		}
	}
	return "", typed
}

// addArgument adds what could be the next argument of an action.
func (c *completions) addArgument(name string, args []string) {
	a, known := findAction(name)
	if !known { // as --defpm may have defined it
		return
	}
	takes := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(a.Args))
	if len(takes) == 0 || len(args) >= len(takes) && !repeated(a.Args) {
		return
	}
	switch plainName(takes[min(len(args), len(takes)-1)]) {
	case "ACTION":
		for _, other := range build.Actions() {
			c.add(other.Name, other.Help)
		}
	case "ARG":
		c.addArgument(args[0], args[1:])
	case "NAME":
		if a.Name == "image" {
			c.addImages()
			c.addContainers()
			c.files = true
		}
	case "NAME:AS":
		for _, v := range os.Environ() {
			name, _, _ := strings.Cut(v, "=")
			c.add(name, "")
		}
	case "FILE", "PATH", "SRC", "DST", "LINE":
		c.files = true
	}
}

// findAction finds a build action by one of its names, without dashes.
func findAction(name string) (build.Action, bool) {
	for _, a := range build.Actions() {
		for _, word := range a.Words() {
			if strings.TrimLeft(word, "-") == name {
				return a, true
			}
		}
	}
	return build.Action{}, false
}

func (c *completions) addOptions(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		c.add("--"+f.Name, usage)
	})
}

// addOperand adds what operand number i of a command could be.
func (c *completions) addOperand(cmd *command, i int) {
	g := cmd.operands
	if len(g) == 0 {
		return
	}
	if i >= len(g) {
		if i = len(g) - 1; !repeated(g[i]) {
			return
		}
	}
	switch plainName(g[i]) {
	case "CONTAINER", "OTHER":
		c.addContainers()
	case "KEY":
		c.addKeys("")
	case "SHELL":
		for _, shell := range []string{"bash", "zsh", "fish"} {
			c.add(shell, "")
		}
	case "NAME":
		if cmd.name == "help" {
			for _, e := range commands() {
				c.add(e.name, e.summary)
			}
		} else {
			c.addImages()
			if c.files = cmd.name == "import"; c.files {
				c.addKeys("@")
			}
		}
	default:
		c.files = true
	}
}

// addContainers adds the ids there are, newest first, and the names.
func (c *completions) addContainers() {
	records := quietRecords()
	for i := range records {
		r := records[len(records)-1-i]
		c.add(r.ID.String(), madeBy(r.Origin))
	}
	c.addKeys("@")
}

// addImages adds the names by which images were imported, but those of files, which a shell knows.
func (c *completions) addImages() {
	seen := map[string]bool{}
	for _, r := range quietRecords() {
		name := r.Origin.From
		if r.Origin.Kind != "import" || seen[name] || name == "" || strings.ContainsAny(name, " ") || strings.ContainsAny(name[:1], "/.") {
			continue
		}
		seen[name] = true
		c.add(name, "container "+r.ID.String())
	}
}

func (c *completions) addKeys(prefix string) {
	st := quietStore()
	if st == nil {
		return
	}
	names, err := st.Names()
	if err != nil {
		return
	}
	for _, n := range names {
		c.add(prefix+n.Name, "container "+n.ID.String())
	}
}

// quietRecords gives the containers that can be read. Trouble with the store is no matter for
// a completion.
func quietRecords() []container.Record {
	st := quietStore()
	if st == nil {
		return nil
	}
	records, _ := st.List() // the error is about the others
	return records
}

// quietStore opens the store if there is one, without making or cleaning it.
func quietStore() *container.Store {
	dir, err := storeDir()
	if err != nil {
		return nil
	}
	blobs, err := cas.Open(dir)
	if err != nil {
		return nil
	}
	st, err := container.Open(blobs)
	if err != nil {
		return nil
	}
	return st
}
