package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ignoreFile says, in a directory that is copied, what of it is not.
const ignoreFile = ".plashignore"

// An ignoreList is the content of such a file. It is written as gitignore(5) is: a
// pattern on each line, the last that matches decides; ! in front takes files in again; with a
// slash in it, but at its end, a pattern is meant from the directory, else for names at any
// depth; a slash at its end means directories alone; ** stands for any number of directories;
// # begins a comment. What is in a directory that is left out cannot be taken in again.
type ignoreList struct{ patterns []ignorePattern }

type ignorePattern struct {
	elems   []string // of the path, "**" for any number
	negated bool
	dirOnly bool
}

// readIgnore reads the list of a directory; nil if it has none, or is none.
func readIgnore(dir string) (*ignoreList, error) {
	name := filepath.Join(dir, ignoreFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseIgnore(name, string(b))
}

// parseIgnore reads a list; name is the file's, for errors.
func parseIgnore(name, text string) (*ignoreList, error) {
	// The list itself is for plash alone.
	l := &ignoreList{patterns: []ignorePattern{{elems: []string{ignoreFile}}}}
	at := position{file: name}
	for line := range strings.SplitSeq(text, "\n") {
		at.line++
		line = trimIgnore(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var p ignorePattern
		line, p.negated = strings.CutPrefix(line, "!")
		line, p.dirOnly = strings.CutSuffix(line, "/")
		deep := !strings.Contains(line, "/")
		line = strings.Trim(line, "/")
		if line == "" {
			continue
		}
		p.elems = strings.Split(line, "/")
		if deep {
			p.elems = append([]string{"**"}, p.elems...)
		}
		for _, elem := range p.elems {
			if _, err := path.Match(elem, ""); err != nil {
				return nil, fmt.Errorf("%s%s: %w", at.prefix(), elem, err)
			}
		}
		l.patterns = append(l.patterns, p)
	}
	return l, nil
}

// trimIgnore drops what does not count at the end of a line: blanks that are not escaped.
func trimIgnore(line string) string {
	line = strings.TrimSuffix(line, "\r")
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	return line
}

// excludes reports whether a file, named from the directory of the list, is left out.
func (l *ignoreList) excludes(name string, dir bool) bool {
	if l == nil {
		return false
	}
	elems := strings.Split(name, "/")
	out := false
	for _, p := range l.patterns {
		if p.negated == out && (dir || !p.dirOnly) && matchPath(p.elems, elems) {
			out = !p.negated
		}
	}
	return out
}

// matchPath matches a path element by element.
func matchPath(pattern, elems []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			rest := pattern[1:]
			if len(rest) == 0 {
				return len(elems) > 0
			}
			for i := range elems {
				if matchPath(rest, elems[i:]) {
					return true
				}
			}
			return false
		}
		if len(elems) == 0 {
			return false
		}
		// The pattern has been tried: there is no error.
		if ok, _ := path.Match(pattern[0], elems[0]); !ok {
			return false
		}
		pattern, elems = pattern[1:], elems[1:]
	}
	return len(elems) == 0
}
