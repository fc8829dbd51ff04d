package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/spelling"
	"github.com/spf13/pflag"
)

// How arguments are read.
//
// A command's operands are named as its usage line names them, and the names say
// what is allowed: [X] may be missing, X… may be repeated, CMD… begins a command
// line that is taken as it is, ARG… stands for words that are another program's,
// whatever they look like, CONTAINER may be build actions, and ACTIONS… means
// that every word is the build language's. An empty word, which most often is a
// variable of a script that is not set, is no operand but where the name says
// so: X|''. The same holds for the values of options.
//
// Options are known by the command's flag set. They may stand anywhere before
// "--", in commands with CMD… only before CMD. Where a CONTAINER is expected and
// a word stands that begins with a dash and is no option of the command, the
// words from there to the first "--" are build actions, and what follows the
// "--" are operands:
//
//	plash-run -m /srv --image alpine --run 'touch /file' -- ls -l /file
//	plash-run 2 -m /srv ls -l /file
//	plash-export-tar --image alpine -- out.tar
//
// The first of these words must be a build action, else it is a mistyped option.

// arguments is what a command line comes to; the options are not in it, their
// values are in the variables of the flag set.
type arguments struct {
	operands []string
	// actions are the words that stand for the operand number built, a
	// container to be built; the operand itself is empty then.
	actions []string
	built   int
}

// operand gives operand number i, "" if it is not there.
func (a arguments) operand(i int) string {
	if i >= len(a.operands) {
		return ""
	}
	return a.operands[i]
}

// from gives the operands from number i on.
func (a arguments) from(i int) []string {
	return a.operands[min(i, len(a.operands)):]
}

// container gives operand number i as a container argument.
func (a arguments) container(i int) containerArg {
	arg := containerArg{word: a.operand(i)}
	if a.actions != nil && a.built == i {
		arg.actions = a.actions
	}
	return arg
}

// errHelp is what parsing ends with where --help is among the options.
var errHelp = errors.New("help is asked for")

// wordser is a flag value that takes several words; Set is called with each.
type wordser interface{ words() int }

// grammar is the list of operand names, read as described above.
type grammar []string

func optional(name string) bool   { return strings.HasPrefix(name, "[") }
func repeated(name string) bool   { return strings.Contains(name, "…") }
func mayBeEmpty(name string) bool { return strings.HasSuffix(plainBrackets(name), "|''") }

func plainBrackets(name string) string { return strings.Trim(name, "[]…") }

// plainName is the name alone: "CONTAINER" for "[CONTAINER|”]".
func plainName(name string) string { return strings.TrimSuffix(plainBrackets(name), "|''") }

// actions reports whether all words are the build language's.
func (g grammar) actions() bool { return len(g) == 1 && plainName(g[0]) == "ACTIONS" }

// isContainer reports whether operand number i may be given as build actions.
func (g grammar) isContainer(i int) bool {
	return i < len(g) && plainName(g[i]) == "CONTAINER"
}

// command reports whether operand number i begins a command line.
func (g grammar) command(i int) bool {
	return i < len(g) && plainName(g[i]) == "CMD"
}

// foreign reports whether the words from operand number i on are another program's.
func (g grammar) foreign(i int) bool {
	return i < len(g) && plainName(g[i]) == "ARG"
}

// check says what is missing, too much or empty.
func (g grammar) check(a arguments) error {
	for i, name := range g {
		if i >= len(a.operands) && !optional(name) {
			return fmt.Errorf("missing %s", plainName(name))
		}
	}
	if len(a.operands) > len(g) && (len(g) == 0 || !repeated(g[len(g)-1])) {
		return fmt.Errorf("unexpected argument: %s", a.operands[len(g)])
	}
	for i, word := range a.operands {
		name := g[min(i, len(g)-1)]
		if word != "" || a.actions != nil && a.built == i || mayBeEmpty(name) {
			continue
		}
		if name := plainName(name); name != "CMD" && name != "ARG" && name != "ACTIONS" {
			return fmt.Errorf("%s is an empty word", name)
		}
	}
	return nil
}

// parse reads words, sets the options among them, and gives the operands.
func parse(g grammar, flags *pflag.FlagSet, words []string) (arguments, error) {
	a, err := g.split(flags, words)
	if err != nil {
		return a, err
	}
	return a, g.check(a)
}

func (g grammar) split(flags *pflag.FlagSet, words []string) (a arguments, err error) {
	for len(words) > 0 {
		word, n := words[0], len(a.operands)
		switch {
		case g.foreign(n) && (n > 0 || len(words) > 1 || !asksForHelp(word)):
			a.operands = append(a.operands, words...)
			return a, nil
		case g.actions():
			if flag, _ := lookup(flags, word); flag == nil || flag.NoOptDefVal != "" && strings.Contains(word, "=") {
				a.operands = append(a.operands, word)
				words = words[1:]
				continue
			}
			words, err = setOption(flags, words)
		case g.command(n) && !isOption(word) && word != "--":
			a.operands = append(a.operands, words...)
			return a, nil
		case word == "--":
			a.operands = append(a.operands, g.afterDashes(n, words[1:])...)
			return a, nil
		case !isOption(word):
			a.operands = append(a.operands, word)
			words = words[1:]
		default:
			flag, _ := lookup(flags, word)
			if flag == nil && g.isContainer(n) {
				a.actions, words = cutDashes(words)
				a.built = n
				a.operands = append(append(a.operands, ""), words...)
				return a, checkActions(flags, a.actions)
			}
			words, err = setOption(flags, words)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

// afterDashes gives the operands that follow a "--" which ended the options
// where n operands were read. Between a container and its command line a second
// "--" may stand: plash-run -- 2 -- ls.
func (g grammar) afterDashes(n int, words []string) []string {
	for i, word := range words {
		if g.command(n+i) && word == "--" {
			return append(append([]string(nil), words[:i]...), words[i+1:]...)
		}
	}
	return words
}

// cutDashes splits words at the first "--".
func cutDashes(words []string) (before, after []string) {
	for i, word := range words {
		if word == "--" {
			return words[:i], words[i+1:]
		}
	}
	return words, nil
}

// checkActions says which of the words that are to be build actions is an option
// of the command, mistyped or misplaced. What else is wrong with them is for the
// build language to say.
func checkActions(flags *pflag.FlagSet, words []string) error {
	if !isAction(words[0]) {
		return withHint(fmt.Errorf("unknown option or build action: %s", words[0]), suggest(flags, words[0], true))
	}
	for _, word := range words {
		if name, _, _ := strings.Cut(word, "="); name == "--defpm" {
			return nil // there may be other actions from here on
		}
		flag, _ := lookup(flags, word)
		switch {
		case flag == nil || isAction(word):
		case flag.Name == "help":
			return errHelp
		default:
			return withHint(fmt.Errorf("%s stands among the build actions and is none", word),
				"options of "+flags.Name()+" stand before the build actions")
		}
	}
	return nil
}

// suggest says which option, or build action, an unknown one may have been meant
// to be; "" if none is much like it.
func suggest(flags *pflag.FlagSet, word string, orAction bool) string {
	word, _, _ = strings.Cut(word, "=")
	best, least := "", 3
	try := func(candidate string) {
		if d := spelling.Distance(word, candidate); d < least && d < len(candidate)-2 {
			best, least = candidate, d
		}
	}
	flags.VisitAll(func(f *pflag.Flag) { try("--" + f.Name) })
	if orAction {
		for _, a := range build.Actions() {
			for _, candidate := range a.Words() {
				try(candidate)
			}
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// isOption reports whether a word has the form of an option: "-" alone stands
// for a standard stream, and "--" has a meaning of its own.
func isOption(word string) bool {
	return len(word) > 1 && word[0] == '-' && word != "--"
}

// asksForHelp reports whether a word is --help.
func asksForHelp(word string) bool { return word == "--help" || word == "-h" }

// lookup finds the option that a word names, and the value that is joined to it:
// --name, --name=value, -n, -nvalue. The option is nil if there is none such.
func lookup(flags *pflag.FlagSet, word string) (*pflag.Flag, string) {
	if long, ok := strings.CutPrefix(word, "--"); ok {
		name, value, _ := strings.Cut(long, "=")
		if name == "" {
			return nil, ""
		}
		return flags.Lookup(name), value
	}
	if !isOption(word) || word[1] >= 0x80 {
		return nil, ""
	}
	return flags.ShorthandLookup(word[1:2]), word[2:]
}

// setOption sets the option that words begin with, and returns the words behind
// it and its values.
func setOption(flags *pflag.FlagSet, words []string) ([]string, error) {
	word, rest := words[0], words[1:]
	flag, value := lookup(flags, word)
	if flag == nil {
		return nil, withHint(fmt.Errorf("unknown option: %s", word), suggest(flags, word, false))
	}
	long := strings.HasPrefix(word, "--")
	joined := value != "" || long && strings.Contains(word, "=")
	if flag.NoOptDefVal != "" { // a switch
		switch {
		case flag.Name == "help":
			return nil, errHelp
		case long && joined:
			return nil, fmt.Errorf("option --%s takes no value", flag.Name)
		case joined: // -qh is -q -h
			rest = append([]string{"-" + value}, rest...)
		}
		return rest, setFlag(flags, flag, flag.NoOptDefVal)
	}
	count := 1
	if w, ok := flag.Value.(wordser); ok {
		count = w.words()
	}
	values := rest
	if joined {
		values = append([]string{value}, rest...)
	}
	if len(values) < count {
		what, _ := pflag.UnquoteUsage(flag)
		return nil, fmt.Errorf("option --%s needs %s", flag.Name, what)
	}
	for _, v := range values[:count] {
		if err := setFlag(flags, flag, v); err != nil {
			return nil, err
		}
	}
	return values[count:], nil
}

// emptier is a flag value that an empty word makes sense for.
type emptier interface{ mayBeEmpty() }

func setFlag(flags *pflag.FlagSet, flag *pflag.Flag, value string) error {
	if _, ok := flag.Value.(emptier); !ok && value == "" {
		return fmt.Errorf("option --%s: an empty word", flag.Name)
	}
	if err := flags.Set(flag.Name, value); err != nil {
		return fmt.Errorf("option --%s: %s: no valid value", flag.Name, value)
	}
	return nil
}

// pairValue is an option that takes two words.
type pairValue struct {
	first *string // the word that was set, until the second one is
	into  func(a, b string)
}

func (p *pairValue) words() int     { return 2 }
func (p *pairValue) String() string { return "" }
func (p *pairValue) Type() string   { return "pair" }

func (p *pairValue) Set(word string) error {
	if p.first == nil {
		p.first = &word
		return nil
	}
	p.into(*p.first, word)
	p.first = nil
	return nil
}
