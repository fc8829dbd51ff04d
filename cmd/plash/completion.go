package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The completion scripts are cobra's. They ask the program itself what could
// stand next (complete.go), by calling the first word of the line, so one script
// serves plash and all plash-NAME.

// The words by which a completion script asks, with and without descriptions.
const (
	completeCommand      = cobra.ShellCompRequestCmd
	completeCommandPlain = cobra.ShellCompNoDescRequestCmd
)

type completionOptions struct{ shell string }

func newCompletion() *command {
	return &command{
		operands: grammar{"SHELL"},
		usage:    "bash|zsh|fish",
		long: `
Prints a script that teaches a shell to complete commands, options, containers,
build actions and what they take. That for bash needs the package
bash-completion.`,
		example: "source <(plash-completion bash)\n" +
			"plash-completion zsh > \"${fpath[1]}/_plash\"\n" +
			"plash-completion fish > ~/.config/fish/completions/plash.fish",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runCompletion(ctx, completionOptions{shell: a.operand(0)}, s)
		},
	}
}

func runCompletion(_ context.Context, o completionOptions, s streams) error {
	root := &cobra.Command{Use: binary}
	var b bytes.Buffer
	var err error
	switch o.shell {
	case "bash":
		err = root.GenBashCompletionV2(&b, true)
		fmt.Fprintf(&b, "\ncomplete -o default -F __start_%s %s\n", binary, strings.Join(linkNames(), " "))
	case "zsh":
		err = root.GenZshCompletion(&b)
		// The first line is read where the script lies in $fpath, the call
		// where it is sourced.
		script := strings.Replace(b.String(), "#compdef "+binary, "#compdef "+binary+" "+strings.Join(linkNames(), " "), 1)
		b.Reset()
		b.WriteString(script)
		fmt.Fprintf(&b, "\ncompdef _%s %s\n", binary, strings.Join(linkNames(), " "))
	case "fish":
		err = root.GenFishCompletion(&b, true)
		for _, name := range linkNames() {
			fmt.Fprintf(&b, "complete -c %s -e\ncomplete -c %s -n '__%s_prepare_completions' -f -a '$__%s_comp_results'\n",
				name, name, binary, binary)
		}
	default:
		return &usageError{what: "unknown shell: " + o.shell}
	}
	if err != nil {
		return fmt.Errorf("make the %s script: %w", o.shell, err)
	}
	return s.print(b.String())
}

// linkNames gives the names by which the commands can be called directly.
func linkNames() []string {
	var names []string
	for _, e := range commands() {
		names = append(names, binary+"-"+e.name)
	}
	return names
}
