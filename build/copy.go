package build

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ihucos/plash/runtime"
)

// --copy takes files of the host into the image. They get to the script by a directory that
// is there while it runs (its input, see package runtime), in which each source has a number. The
// script has their digests, so they are part of the key.

// A copyAction is a --copy.
type copyAction struct {
	sources []copySource
	to      string
}

type copySource struct {
	path string // on the host
	name string // the last element of it
	from position
}

// An input is what a layer's script finds under a number in its input.
type input struct {
	tree *hostTree
	// within is the name under which the file lies in a directory of the number; "" if the
	// file itself has the number.
	within string
}

func (e *evaluator) copyFiles(s statement) error {
	last := len(s.args) - 1
	c := &copyAction{to: s.args[last].text}
	for _, arg := range s.args {
		if arg.text == "" {
			return usage(arg.from, "", "%s: the path is empty", s.name.text)
		}
	}
	for _, arg := range s.args[:last] {
		path, err := filepath.Abs(hostPath(arg))
		if err != nil {
			return fmt.Errorf("%s %s: %w", s.name.text, arg.text, err)
		}
		c.sources = append(c.sources, copySource{hostPath(arg), filepath.Base(path), arg.from})
	}
	l := e.layerNow()
	l.parts = append(l.parts, part{copy: c})
	return nil
}

// read looks at the sources.
func (c *copyAction) read(ctx context.Context) ([]*hostTree, error) {
	trees := make([]*hostTree, len(c.sources))
	for i, s := range c.sources {
		ignore, err := readIgnore(s.path)
		if err == nil {
			trees[i], err = readTree(ctx, s.path, ignore)
		}
		if err == nil {
			err = trees[i].copyable()
		}
		if err != nil {
			return nil, fmt.Errorf("%s--copy %s: %w", s.from.prefix(), s.path, err)
		}
	}
	return trees, nil
}

// script adds the sources to what the layer finds in its input and returns the text that
// copies them.
func (c *copyAction) script(ctx context.Context, l *Layer) (string, error) {
	trees, err := c.read(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	// Whoever reads the log does not want to see how.
	b.WriteString(": copy " + Quote(c.to) + "\n(\n\t{ set +x; } 2>/dev/null\n\tset +f\n" + copyFunctions)
	for i, tree := range trees {
		in := input{tree: tree}
		to, command := c.to, "plash_tree"
		dir := strings.HasSuffix(c.to, "/")
		switch {
		case len(trees) > 1 || !tree.isDir() && dir:
			to = strings.TrimRight(c.to, "/") + "/" + c.sources[i].name
			if !tree.isDir() {
				command = "plash_file"
			}
		case !tree.isDir():
			// Where it is a directory in the image, the file keeps its name, which for
			// the rest does not matter.
			in.within = c.sources[i].name
			l.names = append(l.names, in.within)
			command = "plash_named"
		}
		l.inputs = append(l.inputs, in)
		from := runtime.InputPath + "/" + strconv.Itoa(len(l.inputs))
		fmt.Fprintf(&b, "\t# %s\n\t%s %s %s", tree.digest, command, from, Quote(operand(to)))
		if command == "plash_tree" {
			fmt.Fprintf(&b, " %04o", tree.entries[0].mode)
		}
		b.WriteByte('\n')
	}
	b.WriteString(")")
	return b.String(), nil
}

// operand is a path that no program takes for an option, and with which ${to%/*} is the
// directory that it is in.
func operand(path string) string {
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		path = trimmed
	} else {
		path = "/."
	}
	if !strings.HasPrefix(path, "/") {
		path = "./" + path
	}
	return path
}

// namedMark is the file of the input by which a script says that the name of a file
// mattered.
const namedMark = "named"

// copyFunctions copy with cp(1), which images have from coreutils or busybox:
//
//   - plash_file FROM TO: a file to a name, in place of what is there;
//   - plash_named FROM TO: the file in FROM, into a directory if TO is one;
//   - plash_tree FROM TO MODE: what is in a directory. Directories that are there keep
//     their mode, and may be links to directories, as /lib is in many images; cp(1) refuses
//     those.
const copyFunctions = `	plash_file() {
		mkdir -p -- "${2%/*}/"
		if test -d "$2" && ! test -h "$2"; then
			echo "copy: $2 is a directory" >&2
			exit 1
		fi
		rm -f -- "$2"
		cp -a -- "$1" "$2"
	}
	plash_named() {
		for from in "$1"/* "$1"/.[!.]* "$1"/..?*; do
			if ! test -e "$from" && ! test -h "$from"; then
				continue
			fi
			to=$2
			if test -d "$to"; then
				to=$to/${from##*/}
				: >` + runtime.InputPath + "/" + namedMark + `
			fi
			plash_file "$from" "$to"
		done
	}
	plash_tree() (
		if ! test -d "$2"; then
			mkdir -p -- "$2"
			chmod "$3" "$2"
		fi
		for from in "$1"/* "$1"/.[!.]* "$1"/..?*; do
			to=$2/${from##*/}
			if test -d "$from" && ! test -h "$from"; then
				if test -d "$to"; then
					plash_tree "$from" "$to"
				else
					cp -a -- "$from" "$to"
				fi
			elif test -e "$from" || test -h "$from"; then
				plash_file "$from" "$to"
			fi
		done
	)
`
