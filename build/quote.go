package build

import (
	"strconv"
	"strings"
)

// Quote returns word as one word of a POSIX shell script. Words of harmless
// characters stay as they are. Word must not contain NUL, which no shell can hold.
func Quote(word string) string {
	if word != "" && strings.IndexFunc(word, needsQuotes) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func needsQuotes(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("@%+=:,./_-", r)
}

// quoteAll quotes words and joins them with spaces.
func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}

// comment returns s as text that can stand in a comment of a script: it has
// no line break.
func comment(s string) string { return strconv.QuoteToASCII(s) }

// writeLines returns a command that writes lines, and a newline after each, to
// the file that redirect names, as in ">file". It prints nothing of them with set -x,
// and they may be of any length.
func writeLines(redirect string, lines []string) string {
	text := strings.Join(lines, "\n") + "\n"
	// The shell changes nothing in a here-document whose delimiter is quoted.
	end := "PLASH"
	for n := 1; strings.Contains("\n"+text, "\n"+end+"\n"); n++ {
		end = "PLASH" + strconv.Itoa(n)
	}
	if !losesByte(text, end) {
		return "cat " + redirect + " <<'" + end + "'\n" + text + end
	}
	// printf is part of the shell, so its arguments may be long.
	return silently("printf %s " + Quote(text) + " " + redirect)
}

// losesByte reports whether dash would spoil a here-document: in lines that begin
// with a part of the delimiter it loses the byte after that part if it is not ASCII
// (0.5.12 does; TestWriteFile).
func losesByte(text, end string) bool {
	for line := range strings.Lines(text) {
		n := 0
		for n < len(end) && n < len(line) && line[n] == end[n] {
			n++
		}
		if n > 0 && n < len(line) && line[n] >= 0x80 {
			return true
		}
	}
	return false
}
