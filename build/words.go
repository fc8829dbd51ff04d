package build

import (
	"fmt"
	"strings"
)

// A word is one word of build actions, and where it comes from.
type word struct {
	text string
	from position
}

// position is where a word stands: in a file, or on the command line.
type position struct {
	file string // "" for the command line
	line int    // from 1
}

// prefix is what an error about a word begins with.
func (p position) prefix() string {
	if p.file == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", p.file, p.line)
}

// A statement is an action as it was written: its name, with dashes, and its
// arguments. Sources of other forms make statements too; the rest of the package
// sees nothing else.
type statement struct {
	name word
	args []word
}

// texts returns the arguments without their positions.
func (s statement) texts() []string {
	texts := make([]string, len(s.args))
	for i, w := range s.args {
		texts[i] = w.text
	}
	return texts
}

// usage returns an error about the statement.
func (s statement) usage(advice, format string, a ...any) *UsageError {
	return usage(s.name.from, advice, format, a...)
}

func usage(at position, advice, format string, a ...any) *UsageError {
	return &UsageError{Msg: at.prefix() + fmt.Sprintf(format, a...), Advice: advice}
}

// statements splits the words of a command line.
func statements(args []string) ([]statement, error) {
	var list []statement
	for i, arg := range args {
		w := word{text: arg, from: position{line: i + 1}}
		switch {
		case strings.IndexByte(arg, 0) >= 0:
			return nil, usage(w.from, "", "a word contains a NUL byte: %q", arg)
		case arg == "--":
			return nil, usage(w.from, "", "unexpected -- among the actions")
		case strings.HasPrefix(arg, "-"):
			list = append(list, splitJoined(w))
		case len(list) == 0:
			return nil, usage(w.from, adviceBare(arg), "not an action: %q", arg)
		default:
			last := &list[len(list)-1]
			last.args = append(last.args, w)
		}
	}
	return list, nil
}

// splitJoined begins a statement with a word, which may hold its first argument
// too, as in --name=arg.
func splitJoined(w word) statement {
	name, arg, joined := strings.Cut(w.text, "=")
	if !joined || !strings.HasPrefix(name, "--") {
		return statement{name: w}
	}
	return statement{name: word{name, w.from}, args: []word{{arg, w.from}}}
}

// adviceBare guesses what a word that belongs to no action was meant to be.
func adviceBare(arg string) string {
	if builtins().byLong[arg] != nil {
		return fmt.Sprintf("did you mean --%s?", arg)
	}
	return "actions begin with -, as in --image " + Quote(arg)
}
