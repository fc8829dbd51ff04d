package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"
)

// A command is one of plash's commands, ready to be called once. Its constructor
// declares the flags into an options struct and gives a run function that fills
// the rest of the struct from the operands.
type command struct {
	name     string
	operands grammar // see args.go
	usage    string  // what follows the name in the usage line; "": the operands
	long     string  // what the command does
	example  string  // lines as typed
	flags    *pflag.FlagSet
	execs    bool // becomes another program: the exit codes of env(1)
	builds   bool // before that, also where no actions are among its arguments
	run      func(ctx context.Context, a arguments, s streams) error
}

// options gives the flag set to declare options in.
func (c *command) options() *pflag.FlagSet {
	if c.flags == nil {
		c.flags = pflag.NewFlagSet(c.name, pflag.ContinueOnError)
		c.flags.SortFlags = false
	}
	return c.flags
}

// parse reads the words of the command line. The error is errHelp where they ask
// for help.
func (c *command) parse(words []string) (arguments, error) {
	c.addHelpOption()
	c.flags.Init(binary+"-"+c.name, pflag.ContinueOnError) // constructors do not know the name
	a, err := parse(c.operands, c.flags, words)
	if err != nil && !errors.Is(err, errHelp) {
		err = &usageError{what: err.Error(), hint: carriedHint(err), line: c.usageLine()}
	}
	return a, err
}

// start runs the command.
func (c *command) start(ctx context.Context, a arguments, s streams) error {
	err := c.complete(c.run(ctx, a, s))
	if c.execs && err != nil {
		return &notStarted{err: err}
	}
	return err
}

// complete gives a usage error made without knowing the command its usage line.
func (c *command) complete(err error) error {
	var usage *usageError
	if errors.As(err, &usage) && usage.line == "" {
		usage.line = c.usageLine()
	}
	return err
}

func (c *command) usageLine() string {
	usage := c.usage
	if usage == "" {
		usage = strings.Join(c.operands, " ")
	}
	return strings.TrimRight("usage: "+binary+"-"+c.name+" "+usage, " ")
}

// helpWidth is where the lines of options are broken. The other texts are written
// to fit.
const helpWidth = 80

// help is the text of --help.
func (c *command) help() string {
	var b strings.Builder
	b.WriteString(c.usageLine() + "\n\n" + strings.TrimSpace(c.long) + "\n")
	if options := c.flags.FlagUsagesWrapped(helpWidth); options != "" {
		b.WriteString("\nOptions:\n" + options)
	}
	b.WriteString("\nExample:\n")
	for line := range strings.Lines(strings.TrimSpace(c.example)) {
		b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// addHelpOption declares --help, after the command's own options.
func (c *command) addHelpOption() {
	c.options().BoolP("help", "h", false, "show this text")
}
