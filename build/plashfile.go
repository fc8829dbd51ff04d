package build

import (
	"strings"
)

// A Plashfile is read line by line:
//
//   - A line that begins with --name begins an action. It is read as a shell reads a
//     command line, without expansions: quotes and backslashes mean what they mean
//     there, $ and * nothing, and other actions may follow on it.
//   - The lines under it are its arguments, one a line, taken as they are.
//   - Blank lines are skipped; so are lines that begin with #, which are text where
//     the action takes text: in --run, --write-file, --write-script and
//     --entrypoint-script. #! in the first line is never text.
//   - A short form, -x, begins an action too, but in the text of a file it is text, and in
//     a shell script where the line before ends with a backslash.

// plashfile reads the statements of a Plashfile. From is where its text begins.
func (e *evaluator) plashfile(text string, from position) ([]statement, error) {
	var r reader
	kind, before := noText, ""
	for line := range strings.SplitSeq(text, "\n") {
		w := word{text: line, from: from}
		from.line++
		var err error
		switch {
		case strings.IndexByte(line, 0) >= 0:
			err = usage(w.from, "", "a line contains a NUL byte: %q", line)
		case w.from.line == 1 && strings.HasPrefix(line, "#!"):
		case !r.wantsAny() && e.beginsAction(line, kind, before):
			err = r.addLine(w)
			kind = e.lastKind(&r)
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "#") && kind == noText:
		default:
			err = r.argument(w)
		}
		if err != nil {
			return nil, err
		}
		before = line
	}
	return r.list, nil
}

// beginsAction reports whether a line begins an action where the lines before, of
// which before is the last, belong to one that takes text of a kind.
func (e *evaluator) beginsAction(line string, kind textKind, before string) bool {
	name := line
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		name = line[:i]
	}
	switch {
	case len(name) > 2 && name[:2] == "--":
		return strings.IndexByte(letters, name[2]) >= 0
	case len(name) != 2 || name[0] != '-' || e.actions.byShort[name[1:]] == nil:
		return false
	}
	return kind == noText || kind == scriptText && !strings.HasSuffix(before, `\`)
}

// lastKind says what the lines under the last action are.
func (e *evaluator) lastKind(r *reader) textKind {
	if len(r.list) == 0 {
		return noText
	}
	if a := e.actions.lookup(r.list[len(r.list)-1].name.text); a != nil {
		return a.text
	}
	return noText
}

// addLine reads a line as a shell reads a command line.
func (r *reader) addLine(line word) error {
	words, ok := splitWords(line.text)
	if !ok {
		return usage(line.from, "", "a quote is not closed: %s", line.text)
	}
	for _, text := range words {
		if err := r.add(word{text: text, from: line.from}); err != nil {
			return err
		}
	}
	return nil
}

// splitWords splits a line into words as a shell does that expands nothing (POSIX, XCU 2.2
// and 2.3). It reports false if a quote is not closed. A # begins a comment where a word
// could begin.
func splitWords(line string) (words []string, ok bool) {
	var b strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\r':
			if inWord {
				words = append(words, b.String())
				b.Reset()
			}
			inWord = false
			continue
		case '#':
			if !inWord {
				return words, true
			}
			b.WriteByte(c)
		case '\\':
			if i++; i < len(line) {
				b.WriteByte(line[i])
			}
		case '\'':
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return nil, false
			}
			b.WriteString(line[i+1 : i+1+n])
			i += n + 1
		case '"':
			n, ok := doubleQuoted(&b, line[i+1:])
			if !ok {
				return nil, false
			}
			i += n + 1
		default:
			b.WriteByte(c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, b.String())
	}
	return words, true
}

// doubleQuoted writes what stands before the closing quote, and returns where that is.
func doubleQuoted(b *strings.Builder, text string) (end int, ok bool) {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return i, true
		case text[i] == '\\' && i+1 < len(text) && strings.IndexByte("$`\"\\", text[i+1]) >= 0:
			i++
		}
		b.WriteByte(text[i])
	}
	return 0, false
}

// A Header is what a Plashfile says about being executed, in comments among its first lines:
//
//	# plash-exec: exec=/path mount=default,/sys
//
// Relative paths that are shared are meant from the file's directory.
type Header struct {
	Exec   string   // what to run where nothing else says so; "" for nothing
	Mounts []string // what is shared with the host; nil for the default
}

// headerMark begins a comment that is part of the header.
const headerMark = "# plash-exec:"

// parseHeader reads the header of a Plashfile's text, which begins at a position. It ends before
// the first line that is no comment.
func parseHeader(text string, at position) (h Header, err error) {
	at.line--
	for line := range strings.SplitSeq(text, "\n") {
		at.line++
		if !strings.HasPrefix(line, "#") {
			break
		}
		settings, ok := strings.CutPrefix(line, headerMark)
		if !ok {
			continue
		}
		words, ok := splitWords(settings)
		if !ok {
			return h, usage(at, "", "a quote is not closed: %s", line)
		}
		for _, w := range words {
			if err := h.set(at, w); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

func (h *Header) set(at position, setting string) error {
	name, value, joined := strings.Cut(setting, "=")
	switch {
	case joined && name == "exec" && value != "":
		h.Exec = value
	case joined && name == "mount":
		h.Mounts = strings.Split(value, ",")
		for i, m := range h.Mounts {
			if strings.Contains(m, "/") { // else it is a group of paths
				h.Mounts[i] = hostPath(word{m, at})
			}
		}
	default:
		return usage(at, "it is exec=PATH or mount=LIST", "not a setting of plash-exec: %s", Quote(setting))
	}
	return nil
}
