package build

import (
	"strings"
	"unicode/utf8"
)

func (e *evaluator) writeFile(s statement) error {
	path := s.args[0]
	if path.text == "" {
		return usage(path.from, "", "%s: the path is empty", s.name.text)
	}
	e.emit(writeText(path.text, s.texts()[1:]))
	return nil
}

func (e *evaluator) writeScript(s statement) error {
	if err := e.writeFile(s); err != nil {
		return err
	}
	e.emit("chmod 755 -- " + Quote(s.args[0].text))
	return nil
}

// writeText returns commands that make a file of the lines, with a newline each.
// A file that is there keeps its mode and owner, a link is followed.
func writeText(path string, lines []string) string {
	var b strings.Builder
	// The path is not cleaned: a/../b is another place where a is a link.
	if dir := path[:strings.LastIndexByte(path, '/')+1]; strings.Trim(dir, "/") != "" {
		b.WriteString("mkdir -p -- " + Quote(strings.TrimRight(dir, "/")) + "\n")
	}
	if len(lines) == 0 {
		b.WriteString(": >" + Quote(path))
	} else {
		b.WriteString(writeLines(">"+Quote(path), lines))
	}
	return b.String()
}

// entrypointPath is where --entrypoint-script writes to.
const entrypointPath = "/entrypoint"

func (e *evaluator) setEntrypoint(s statement) error {
	if s.args[0].text == "" {
		return s.usage("", "%s: the path is empty", s.name.text)
	}
	if !utf8.ValidString(s.args[0].text) {
		return s.usage("", "%s: not UTF-8, of which the configurations of images are: %q", s.name.text, s.args[0].text)
	}
	e.markEntrypoint(s.args[0].text)
	return nil
}

// markEntrypoint gives the container of the current layer an entrypoint. It
// stands in the script as well, so that the same layer with another entrypoint is
// another container.
func (e *evaluator) markEntrypoint(path string) {
	e.emit("# entrypoint " + comment(path))
	e.layerNow().entrypoint = path
}

func (e *evaluator) entrypointScript(s statement) error {
	lines := s.texts()
	if !strings.HasPrefix(lines[0], "#!") {
		lines = append([]string{"#!/bin/sh"}, lines...)
	}
	e.markEntrypoint(entrypointPath)
	e.emit(writeText(entrypointPath, lines) + "\nchmod 755 " + entrypointPath)
	return nil
}

// devinitScript makes device files in the image's own /dev. While a layer is
// built the host's is mounted over it, and must not be touched; a bind mount of /
// alone, without what is mounted below it, shows the image's. Numbers are those
// of Documentation/admin-guide/devices.txt of Linux; group 5 is tty wherever
// there is such a group.
const devinitScript = `: devinit
(
	{ set +x; } 2>/dev/null
	root=$(mktemp -d)
	mount -o bind / "$root"
	mkdir -p "$root/dev"
	cd "$root/dev"
	node() {
		if ! test -e "$1"; then
			mknod -m "$2" "$1" c "$3" "$4"
			chown "0:$5" "$1"
		fi
	}
	node null 666 1 3 0
	node zero 666 1 5 0
	node full 666 1 7 0
	node random 666 1 8 0
	node urandom 666 1 9 0
	node tty 666 5 0 5
	node console 600 5 1 5
	node ptmx 666 5 2 5
	mkdir -p pts shm
	chmod 1777 shm
	for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
		test -h "${link%%:*}" || ln -s "${link#*:}" "${link%%:*}"
	done
	cd /
	umount "$root"
	rmdir "$root"
)`

func (e *evaluator) devinit(statement) error {
	e.emit(devinitScript)
	return nil
}
