package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ihucos/plash/importexport/output"
	"golang.org/x/sys/unix"
)

// What is printed where:
//
//   - Standard output carries the result alone: an id on a line, a path, a table
//     that was asked for, the text of --help. A script may read it.
//   - Standard error carries the rest: progress, build logs, warnings, errors and
//     hints.
//   - An error is one line, "plash NAME: what went wrong: why", and a second line
//     "hint: …" where there is a way out. A usage error has the usage line
//     between the two.
//   - Names out of images and archives are foreign text: control characters in
//     them are shown escaped, so that they cannot command the terminal.
//   - A result that cannot be written (a full disk) is an error as any other.

// streams are the standard streams of the process.
type streams struct {
	in       *os.File
	out, err *os.File
}

// result prints a line on standard output.
func (s streams) result(a ...any) error {
	return s.print(fmt.Sprintln(a...))
}

// print writes text to standard output as it is.
func (s streams) print(text string) error {
	_, err := io.WriteString(output.NewWriter(s.out, standardOutput), text)
	return err
}

// stream lets write write a large result to standard output. That nobody reads it any more
// ends the process by SIGPIPE, but what shows how it goes is ended before: it is an
// error first, which package os gives to other descriptors than those of the standard streams
// (os/signal, "SIGPIPE").
func (s streams) stream(write func(io.Writer) error) error {
	fd, err := unix.FcntlInt(s.out.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicate %s: %w", standardOutput, err)
	}
	out := os.NewFile(uintptr(fd), s.out.Name())
	err = errors.Join(write(output.NewWriter(out, standardOutput)), out.Close())
	if errors.Is(err, unix.EPIPE) {
		_, _ = s.out.Write([]byte{0}) // which does not return
	}
	return err
}

// standardOutput is what errors call it.
const standardOutput = "standard output"

// warn tells of a trouble that does not end the command.
func (s streams) warn(name string, err error) {
	fmt.Fprintf(s.err, "%s %s: warning: %s\n", binary, name, oneLine(err.Error()))
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// oneLine gives text as one line that is safe to print: line ends become
// semicolons, other control characters and what is no UTF-8 become escapes.
func oneLine(text string) string {
	text = strings.TrimSpace(text)
	if strings.IndexFunc(text, unsafeRune) < 0 {
		return text
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return escape(strings.Join(lines, "; "))
}

// escape replaces what a terminal could take for a command.
func escape(text string) string {
	if strings.IndexFunc(text, unsafeRune) < 0 {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unsafeRune(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

func unsafeRune(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
