package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestDocs runs the examples of the user's guide and of the README: each page is one session of
// a shell, in a store of its own, and shows what commands print. The marks of a page:
//
//   - A block of code in which lines begin with "$ " is a part of the session: commands ("> "
//     goes on with one), and under each what it prints. "…" alone on a line stands for any lines,
//     within a line for any text. An empty line and lines that begin with # may stand before
//     a command.
//   - <!-- file: NAME --> before a block: that is the file's content.
//   - <!-- fails --> before a block: the last command of it fails, the others do not.
//   - <!-- not run: REASON --> before a block: the commands are only shown.
//
// https://example.org is an image server of the test, registry.example.org a registry.
func TestDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages in a Debian root filesystem")
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages: %q, %v", pages, err)
	}
	server := serveDocs(t)
	for _, page := range append(pages, "../../README.md") {
		t.Run(strings.TrimPrefix(page, "../../"), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := readDoc(string(text))
			if err != nil {
				t.Fatalf("%s:%v", page, err)
			}
			s := newSession(t, server)
			s.show(page, blocks)
		})
	}
}

// A docBlock is a block of code of a page.
type docBlock struct {
	line  int // of the page, from 1
	file  string
	text  string // the file's
	fails bool
	shown []docCommand
}

// A docCommand is a command that is shown, and what it prints.
type docCommand struct {
	line    int
	command string
	want    string
}

var (
	docFence = regexp.MustCompile("^(```+)([a-z]*)$")
	docMark  = regexp.MustCompile(`^<!-- (file|fails|not run)(?:: (.*?))? -->$`)
)

// readDoc finds the blocks of a page that are to be run or written. Its errors begin with a line
// number.
func readDoc(text string) ([]docBlock, error) {
	var blocks []docBlock
	lines := strings.Split(text, "\n")
	kind, value := "", ""
	for i := 0; i < len(lines); i++ {
		if m := docMark.FindStringSubmatch(lines[i]); m != nil {
			if kind, value = m[1], m[2]; (value == "") != (kind == "fails") {
				return nil, fmt.Errorf("%d: the mark %q says too little or too much", i+1, lines[i])
			}
			continue
		}
		m := docFence.FindStringSubmatch(lines[i])
		if m == nil {
			if kind != "" && strings.TrimSpace(lines[i]) != "" {
				return nil, fmt.Errorf("%d: after the mark %q there is no block of code", i+1, kind)
			}
			continue
		}
		begin := i + 1
		for i++; i < len(lines) && lines[i] != m[1]; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("%d: the block does not end", begin)
		}
		b := docBlock{line: begin, fails: kind == "fails"}
		content := lines[begin:i]
		session := strings.Contains("\n"+strings.Join(content, "\n"), "\n$ ")
		switch {
		case kind == "file":
			b.file, b.text = value, strings.Join(content, "\n")+"\n"
		case kind == "not run" || !session && m[2] != "console" && kind == "":
			kind = ""
			continue
		case !session:
			return nil, fmt.Errorf("%d: the block has no command", begin)
		default:
			var err error
			if b.shown, err = readCommands(content, begin+1); err != nil {
				return nil, err
			}
		}
		blocks, kind = append(blocks, b), ""
	}
	return blocks, nil
}

// readCommands splits a session, which begins at a line, into commands.
func readCommands(content []string, line int) ([]docCommand, error) {
	var list []docCommand
	for i, text := range content {
		command, begins := strings.CutPrefix(text, "$ ")
		last := len(list) - 1
		switch {
		case begins:
			if last >= 0 {
				list[last].want = withoutComments(list[last].want)
			}
			list = append(list, docCommand{line: line + i, command: command})
		case last < 0:
			if text != "" && !strings.HasPrefix(text, "#") {
				return nil, fmt.Errorf("%d: before the first command there is something else", line+i)
			}
		case list[last].want == "" && strings.HasPrefix(text, "> "):
			list[last].command += "\n" + text[2:]
		default:
			list[last].want += text + "\n"
		}
	}
	return list, nil
}

// withoutComments cuts off the last paragraph of an output, if it is about the command that
// follows, and the empty line before it.
func withoutComments(text string) string {
	at := strings.LastIndex("\n"+text, "\n\n")
	if at < 0 {
		return text
	}
	for line := range strings.Lines(text[at+1:]) {
		if !strings.HasPrefix(line, "#") {
			return text
		}
	}
	return text[:at]
}

// matches reports whether an output is what a page shows.
func matches(want, got string) bool {
	var pattern strings.Builder
	for line := range strings.Lines(want) {
		if line == "…\n" {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern.WriteString(strings.Join(parts, ".*"))
	}
	return regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(got)
}

func TestReadDoc(t *testing.T) {
	const page = "text\n```\nno session\n```\n```\n# first\n$ a \\\n> b\nout\n\n# next\n$ c\n```\n" +
		"<!-- file: x -->\n```plash\n$ d\n```\n<!-- not run: why -->\n```console\n$ e\n```\n<!-- fails -->\n\n```console\n$ f\n\n# g\n```\n"
	blocks, err := readDoc(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []docBlock{
		{line: 5, shown: []docCommand{{7, "a \\\nb", "out\n"}, {12, "c", ""}}},
		{line: 15, file: "x", text: "$ d\n"},
		{line: 24, fails: true, shown: []docCommand{{25, "f", "\n# g\n"}}},
	}
	if !reflect.DeepEqual(blocks, want) {
		t.Errorf("got  %+v\nwant %+v", blocks, want)
	}
	for page, want := range map[string]string{
		"```console\nx\n```\n":                 "1: the block has no command",
		"```\n$ x\n":                           "1: the block does not end",
		"```\nx\n$ x\n```\n":                   "2: before the first command there is something else",
		"<!-- not run -->\n```\n$ x\n```\n":    "1: the mark \"<!-- not run -->\" says too little or too much",
		"<!-- fails: x -->\n```\n$ x\n```\n":   "1: the mark \"<!-- fails: x -->\" says too little or too much",
		"\n<!-- fails -->\ntext\n```\n```\n":   "3: after the mark \"fails\" there is no block of code",
		"<!-- fails -->\n```\nno session\n```": "2: the block has no command",
	} {
		if _, err := readDoc(page); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", page, err, want)
		}
	}
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"", "", true},
		{"", "x\n", false},
		{"a\n", "a\n", true},
		{"a.b\n", "axb\n", false},
		{"a…c\n", "abc\n", true},
		{"a…c\n", "a\nc\n", false},
		{"…\nz\n", "z\n", true},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n…\n", "a\n", true},
		{"a\n…\n", "b\n", false},
	} {
		if matches(tt.want, tt.got) != tt.ok {
			t.Errorf("%q, %q: not %v", tt.want, tt.got, tt.ok)
		}
	}
}
