package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// The pages for man(1), in the macros of man(7).

const manMade = ".\\\" Made of the commands' own help by \"make docs\".\n"

// manEscape is text of which troff takes nothing for its own: control characters at the
// beginning of a line are the caller's matter.
func manEscape(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString("\\(ga")
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r >= 0x80:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// manLine is escaped text that may begin a line.
func manLine(escaped string) string {
	if strings.HasPrefix(escaped, ".") {
		return `\&` + escaped
	}
	return escaped
}

// manText is running text, in which what would be typed is bold.
func manText(text string) string {
	return manLine(marked(text, func(word string) string { return `\fB` + manEscape(word) + `\fR` }, manEscape))
}

// manPre is lines that stay as they are.
func manPre(text string) string {
	var b strings.Builder
	b.WriteString(".PP\n.RS 4\n.nf\n")
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(manLine(manEscape(line)) + "\n")
	}
	b.WriteString(".fi\n.RE\n")
	return b.String()
}

func manHead(name, summary string) string {
	return fmt.Sprintf("%s.TH %s 1 \"\" %s \"plash manual\"\n.SH NAME\n%s \\- %s\n", manMade, strings.ToUpper(manEscape(name)), binary, manEscape(name), manEscape(summary))
}

func manPage(e commandEntry, c *command) string {
	var b strings.Builder
	name := binary + "-" + e.name
	b.WriteString(manHead(name, e.summary) + ".SH SYNOPSIS\n")
	rest := strings.TrimPrefix(c.usageLine(), "usage: "+name)
	fmt.Fprintf(&b, "\\fB%s\\fR%s\n.SH DESCRIPTION\n", manEscape(name), manEscape(rest))
	for i, p := range paragraphs(c.long) {
		switch {
		case p.pre:
			b.WriteString(manPre(p.text))
		case i == 0:
			b.WriteString(manText(p.text) + "\n")
		default:
			b.WriteString(".PP\n" + manText(p.text) + "\n")
		}
	}
	b.WriteString(".SH OPTIONS\n")
	c.flags.VisitAll(func(f *pflag.Flag) {
		forms, value, usage := optionForms(f)
		for i := range forms {
			forms[i] = `\fB` + manEscape(forms[i]) + `\fR`
		}
		if value != "" {
			forms[len(forms)-1] += ` \fI` + manEscape(value) + `\fR`
		}
		fmt.Fprintf(&b, ".TP\n%s\n%s\n", strings.Join(forms, ", "), manText(usage))
	})
	if e.name == "build" {
		manActions(&b)
	}
	b.WriteString(".SH EXAMPLE\n" + strings.TrimPrefix(manPre(strings.Trim(c.example, "\n")), ".PP\n"))
	b.WriteString(".SH SEE ALSO\n" + manSeeAlso(e) + "\n")
	return b.String()
}

// manSeeAlso names the commands that stand beside one.
func manSeeAlso(e commandEntry) string {
	pages := []string{`\fBplash\fR(1)`}
	_, entries := commandGroups()
	for _, other := range entries[e.group] {
		if other.name != e.name {
			pages = append(pages, `\fB`+manEscape(binary+"-"+other.name)+`\fR(1)`)
		}
	}
	return strings.Join(pages, ", ")
}

func manActions(b *strings.Builder) {
	b.WriteString(".SH ACTIONS\n")
	groups, actions := actionGroups()
	for _, group := range groups {
		fmt.Fprintf(b, ".SS %s\n", manEscape(strings.ToUpper(group[:1])+group[1:]))
		for _, a := range actions[group] {
			words := a.Words()
			for i := range words {
				words[i] = `\fB` + manEscape(words[i]) + `\fR`
			}
			args := ""
			if a.Args != "" {
				args = ` \fI` + manEscape(a.Args) + `\fR`
			}
			fmt.Fprintf(b, ".TP\n%s%s\n%s\n", strings.Join(words, ", "), args, manText(a.Help))
		}
	}
}

func manOverview() string {
	var b strings.Builder
	b.WriteString(manHead(binary, overviewTitle))
	b.WriteString(".SH SYNOPSIS\n\\fBplash\\fR \\fINAME\\fR [\\fIARG\\fR\\[u2026]]\n.br\n\\fBplash\\-\\fINAME\\fR [\\fIARG\\fR\\[u2026]]\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n.PP\n%s\n.SH COMMANDS\n", manText(overviewText), manText(containerText))
	groups, entries := commandGroups()
	for _, group := range groups {
		fmt.Fprintf(&b, ".SS %s\n", manEscape(group))
		for _, e := range entries[group] {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR(1)\n%s\n", manEscape(binary+"-"+e.name), manText(e.summary))
		}
	}
	manTable(&b, "ENVIRONMENT", environment)
	manTable(&b, "EXIT STATUS", exitCodes)
	b.WriteString(".SH FILES\n.TP\n\\fB/var/lib/plash\\fR, \\fB\\(ti/.local/share/plash\\fR\nthe store, of root and of others\n")
	return b.String()
}

func manTable(b *strings.Builder, heading string, rows [][2]string) {
	fmt.Fprintf(b, ".SH %s\n", heading)
	for _, row := range rows {
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s\n", manEscape(row[0]), manText(row[1]))
	}
}

// The pages are such as man(1) shows without complaint, and say what the help says.
func TestManPages(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed")
	}
	pages, err := filepath.Glob(filepath.Join(manDir, "*.1"))
	if err != nil || len(pages) < 2 {
		t.Fatalf("pages: %q, %v", pages, err)
	}
	out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput()
	// That there is no date is as it is meant: the pages are of the version they come with.
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "missing date") {
			t.Errorf("mandoc: %s", line)
		}
	}
	if len(out) == 0 && err != nil {
		t.Error(err)
	}
	for _, e := range commands() {
		out, err := exec.Command(mandoc, "-T", "utf8", "-O", "width=400", filepath.Join(manDir, binary+"-"+e.name+".1")).Output()
		if err != nil {
			t.Errorf("%s: %v", e.name, err)
			continue
		}
		// Bold letters are struck twice.
		shown := squeeze(string(unstruck(out)))
		c := newCommand(e.name)
		c.addHelpOption()
		for _, text := range []string{strings.TrimPrefix(c.usageLine(), "usage: "), c.long, c.example} {
			if text = squeeze(text); !strings.Contains(shown, text) {
				t.Errorf("%s: the page does not show %q:\n%s", e.name, text, shown)
			}
		}
	}
}

// squeeze makes one space of all that separates words.
func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

// unstruck is text without what a typewriter strikes over.
func unstruck(b []byte) []byte {
	runes := bytes.Runes(b)
	var out []rune
	for _, r := range runes {
		if r == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return []byte(string(out))
}
