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
	dir  string // what relative paths of the host are meant from; "" for the caller's directory
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
	var r reader
	for i, arg := range args {
		if err := r.add(word{text: arg, from: position{line: i + 1}}); err != nil {
			return nil, err
		}
	}
	return r.list, nil
}

// A reader makes statements of words, wherever they come from.
type reader struct{ list []statement }

// add reads a word as one of a command line.
func (r *reader) add(w word) error {
	switch {
	case strings.IndexByte(w.text, 0) >= 0:
		return usage(w.from, "", "a word contains a NUL byte: %q", w.text)
	case r.wantsAny():
	case w.text == "--":
		return usage(w.from, "", "unexpected -- among the actions")
	case strings.HasPrefix(w.text, "-"):
		r.list = append(r.list, splitJoined(w))
		return nil
	}
	return r.argument(w)
}

// wantsAny reports whether the next word belongs to the last action, whatever it begins
// with: actions in a string do with a dash.
func (r *reader) wantsAny() bool {
	n := len(r.list)
	return n > 0 && r.list[n-1].name.text == "--eval-string" && len(r.list[n-1].args) == 0
}

// argument adds a word to the last action, whatever it begins with.
func (r *reader) argument(w word) error {
	if len(r.list) == 0 {
		return usage(w.from, adviceBare(w.text), "not an action: %q", w.text)
	}
	last := &r.list[len(r.list)-1]
	last.args = append(last.args, w)
	return nil
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
