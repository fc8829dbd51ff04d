package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// The pages as Markdown, for readers of the repository.

const markdownMade = "<!-- Made of the commands' own help by \"make docs\". -->\n"

// markdownText is running text, in which what would be typed is code.
func markdownText(text string) string {
	return marked(text, func(word string) string {
		if name, ok := strings.CutPrefix(word, binary+"-"); ok && newCommand(name) != nil {
			return "[`" + word + "`](" + word + ".md)"
		}
		return "`" + word + "`"
	}, escapeMarkdown)
}

var escapeMarkdown = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "`", "\\`", "<", "&lt;", "[", `\[`, "|", `\|`).Replace

// markdownCode is text that is read as it stands, also in a table.
func markdownCode(text string) string { return "`" + strings.ReplaceAll(text, "|", `\|`) + "`" }

func markdownPage(e commandEntry, c *command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# %s-%s\n\n%s\n\n", markdownMade, binary, e.name, markdownText(e.summary))
	fmt.Fprintf(&b, "```\n%s\n```\n", strings.TrimPrefix(c.usageLine(), "usage: "))
	for _, p := range paragraphs(c.long) {
		if p.pre {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", p.text)
		} else {
			fmt.Fprintf(&b, "\n%s\n", markdownText(p.text))
		}
	}
	b.WriteString("\n## Options\n\n")
	c.flags.VisitAll(func(f *pflag.Flag) {
		forms, value, usage := optionForms(f)
		for i := range forms {
			forms[i] = "`" + forms[i] + "`"
		}
		if last := len(forms) - 1; value != "" {
			forms[last] = strings.TrimSuffix(forms[last], "`") + " " + value + "`"
		}
		fmt.Fprintf(&b, "- %s: %s\n", strings.Join(forms, ", "), markdownText(usage))
	})
	if e.name == "build" {
		markdownActions(&b)
	}
	fmt.Fprintf(&b, "\n## Example\n\n```sh\n%s\n```\n", strings.Trim(c.example, "\n"))
	return b.String()
}

func markdownActions(b *strings.Builder) {
	b.WriteString("\n## Actions\n")
	groups, actions := actionGroups()
	for _, group := range groups {
		fmt.Fprintf(b, "\n| %s | |\n| --- | --- |\n", group)
		for _, a := range actions[group] {
			words := a.Words()
			for i := range words {
				words[i] = markdownCode(words[i])
			}
			if a.Args != "" {
				words[0] = markdownCode(strings.Trim(words[0], "`") + " " + a.Args)
			}
			fmt.Fprintf(b, "| %s | %s |\n", strings.Join(words, ", "), markdownText(a.Help))
		}
	}
}

func markdownOverview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# Commands\n\n%s\n\n%s\n", markdownMade, markdownText(overviewText), markdownText(containerText))
	groups, entries := commandGroups()
	for _, group := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| | |\n| --- | --- |\n", group)
		for _, e := range entries[group] {
			name := binary + "-" + e.name
			fmt.Fprintf(&b, "| [`%s`](%s.md) | %s |\n", name, name, markdownText(e.summary))
		}
	}
	markdownTable(&b, "Environment", environment)
	markdownTable(&b, "Exit codes", exitCodes)
	return b.String()
}

func markdownTable(b *strings.Builder, heading string, rows [][2]string) {
	fmt.Fprintf(b, "\n## %s\n\n| | |\n| --- | --- |\n", heading)
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s |\n", markdownCode(row[0]), markdownText(row[1]))
	}
}
