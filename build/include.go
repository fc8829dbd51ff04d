package build

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxIncludes is how many files may be included: files that include others twice could
	// otherwise grow without bound.
	maxIncludes = 1000
	// maxPlashfile is the size, in bytes, that a Plashfile has at most.
	maxPlashfile = 64 << 20
)

// An includedFile is a Plashfile that is being read.
type includedFile struct {
	name string
	info os.FileInfo
}

// ParseFile reads the build actions of a Plashfile, and its header.
func ParseFile(name string, stdin io.Reader) (*Plan, Header, error) {
	e := newEvaluator(stdin)
	text, at, leave, err := e.enter(name)
	if err != nil {
		return nil, Header{}, err
	}
	defer leave()
	return e.whole(text, at)
}

// ParseText reads the build actions of a Plashfile's text, and its header. The name stands
// in errors.
func ParseText(name, text string, stdin io.Reader) (*Plan, Header, error) {
	return newEvaluator(stdin).whole(text, position{file: name, line: 1})
}

func (e *evaluator) whole(text string, at position) (*Plan, Header, error) {
	header, err := parseHeader(text, at)
	if err == nil {
		err = e.evalText(text, at)
	}
	return e.plan, header, err
}

// evalText runs the actions of a Plashfile's text, which begins at from.
func (e *evaluator) evalText(text string, from position) error {
	list, err := e.plashfile(text, from)
	if err != nil {
		return err
	}
	return e.evalAll(list)
}

func (e *evaluator) include(s statement) error {
	file := s.args[0]
	if file.text == "" {
		return usage(file.from, "", "%s: the path is empty", s.name.text)
	}
	text, at, leave, err := e.enter(hostPath(file))
	var loop *UsageError
	switch {
	case errors.As(err, &loop):
		return usage(file.from, loop.Advice, "%s: %s", s.name.text, loop.Msg)
	case err != nil:
		return fmt.Errorf("%s%s: %w", file.from.prefix(), s.name.text, err)
	}
	defer leave()
	return e.evalText(text, at)
}

// enter reads a Plashfile that is to be included, until leave is called.
func (e *evaluator) enter(name string) (text string, at position, leave func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", at, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", at, nil, err
	}
	for i, outer := range e.open {
		if os.SameFile(outer.info, info) {
			return "", at, nil, &UsageError{Msg: e.loop(i, name)}
		}
	}
	if e.included++; e.included > maxIncludes {
		return "", at, nil, &UsageError{Msg: fmt.Sprintf("%s: more than %d files are included", name, maxIncludes)}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPlashfile+1))
	if err != nil {
		return "", at, nil, err
	}
	if len(b) > maxPlashfile {
		return "", at, nil, &UsageError{Msg: fmt.Sprintf("%s: larger than a Plashfile can be (%d bytes)", name, maxPlashfile)}
	}
	// What a link in a directory of programs leads to has its other files beside it.
	dir := filepath.Dir(name)
	if real, err := filepath.EvalSymlinks(name); err == nil {
		dir = filepath.Dir(real)
	}
	e.open = append(e.open, includedFile{name, info})
	leave = func() { e.open = e.open[:len(e.open)-1] }
	return string(b), position{file: name, line: 1, dir: dir}, leave, nil
}

// loop describes a file that includes itself, by way of those that are open from number i on.
func (e *evaluator) loop(i int, name string) string {
	var way strings.Builder
	for _, f := range e.open[i:] {
		way.WriteString(f.name + " → ")
	}
	return name + " includes itself: " + way.String() + name
}

func (e *evaluator) evalString(s statement) error {
	// Paths mean what they mean around it.
	return e.evalText(s.args[0].text, position{file: s.args[0].from.prefix() + "--eval-string", line: 1, dir: s.args[0].from.dir})
}

// stdinName is what errors call standard input.
const stdinName = "standard input"

func (e *evaluator) evalStdin(s statement) error {
	switch {
	case e.stdin == nil:
		return s.usage("", "%s: there is no standard input here", s.name.text)
	case e.stdinRead:
		return s.usage("", "%s: standard input has been read already", s.name.text)
	}
	e.stdinRead = true
	b, err := io.ReadAll(io.LimitReader(e.stdin, maxPlashfile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name.text, err)
	}
	if len(b) > maxPlashfile {
		return s.usage("", "%s: more than a Plashfile can be (%d bytes)", s.name.text, maxPlashfile)
	}
	return e.evalText(string(b), position{file: stdinName, line: 1})
}

// hostPath is a path of the host that stands in actions: a relative one is meant from the
// directory of the file it is in.
func hostPath(w word) string {
	if filepath.IsAbs(w.text) || w.from.dir == "" || w.from.dir == "." {
		return w.text
	}
	return filepath.Join(w.from.dir, w.text)
}

// hostImage is the name of an image, where ./ and ../ begin a path of the host.
func hostImage(w word) string {
	if !strings.HasPrefix(w.text, "./") && !strings.HasPrefix(w.text, "../") {
		return w.text
	}
	path := hostPath(w)
	if path == w.text || filepath.IsAbs(path) || strings.HasPrefix(path, "../") {
		return path
	}
	return "./" + path
}
