package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
)

type helpOptions struct {
	names bool
	name  string
}

func newHelp() *command {
	var o helpOptions
	c := &command{
		operands: grammar{"[NAME]"},
		usage:    "[--names] [NAME]",
		long:     "Lists the commands, or says what the command NAME does.",
		example:  "plash-help\nplash-help run",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runHelp(ctx, o, s)
		},
	}
	c.options().BoolVar(&o.names, "names", false, "print the names of the commands alone")
	return c
}

func runHelp(_ context.Context, o helpOptions, s streams) error {
	switch {
	case o.names:
		var b strings.Builder
		for _, e := range commands() {
			b.WriteString(e.name + "\n")
		}
		return s.print(b.String())
	case o.name != "":
		c := newCommand(strings.TrimPrefix(o.name, binary+"-"))
		if c == nil {
			return unknownCommand(o.name)
		}
		c.addHelpOption()
		return s.print(c.help())
	}
	return s.print(overview())
}

// overview is the list of all commands.
func overview() string {
	var b strings.Builder
	b.WriteString(topUsage + "\n\nBuilds and runs containers that are just processes.\n" +
		"plash-NAME is the same as plash NAME, and --help explains each.\n")
	group, width := "", 0
	for _, e := range commands() {
		width = max(width, len(e.name))
	}
	for _, e := range commands() {
		if e.group != group {
			group = e.group
			b.WriteString("\n" + group + ":\n")
		}
		fmt.Fprintf(&b, "  %-*s  %s\n", width, e.name, e.summary)
	}
	b.WriteString("\nExample:\n  plash-run --image alpine --run 'touch /file' -- ls /file\n")
	return b.String()
}

// version is set by the linker for a release: -X main.version=1.2.
var version string

type versionOptions struct{}

func newVersion() *command {
	return &command{
		long:    "Prints the version of plash.",
		example: "plash-version",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runVersion(ctx, versionOptions{}, s)
		},
	}
}

func runVersion(_ context.Context, _ versionOptions, s streams) error {
	return s.result(binary, versionText())
}

// versionText is the version that was linked in, else what the toolchain knows
// of the module and the commit.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
