package plash_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestLinks checks the links of all Markdown files: files and headings that they lead to must
// be there. Links to other sites must be URLs; whether someone answers there is not asked.
func TestLinks(t *testing.T) {
	docs := markdownFiles(t)
	links := 0
	for file, doc := range docs {
		for _, l := range doc.links {
			links++
			if err := checkLink(docs, file, l.target); err != nil {
				t.Errorf("%s:%d: %s: %v", file, l.line, l.target, err)
			}
		}
	}
	if links < 50 {
		t.Errorf("found %d links in %d files", links, len(docs))
	}
}

// A markdownFile is what links are about.
type markdownFile struct {
	links   []markdownLink
	anchors map[string]bool
}

type markdownLink struct {
	target string
	line   int
}

// markdownFiles reads all Markdown files of the module.
func markdownFiles(t *testing.T) map[string]markdownFile {
	t.Helper()
	docs := map[string]markdownFile{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && strings.HasPrefix(d.Name(), "."), d.IsDir() && p == "bench/out":
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(p) != ".md":
			return nil
		}
		text, err := os.ReadFile(p)
		docs[filepath.ToSlash(p)] = readMarkdown(string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

var (
	codeSpan = regexp.MustCompile("(`+)[^`]*(`+)")
	// [text](target), [text](<target>), [text](target "title"); pictures are the same with a !.
	inlineLink = regexp.MustCompile(`\]\(\s*<?([^)\s>]*)>?(?:\s+"[^"]*")?\s*\)`)
	// [label]: target
	linkDefinition = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s+<?([^\s>]+)`)
	heading        = regexp.MustCompile(`^ {0,3}#{1,6}\s+(.*?)\s*#*$`)
	anchor         = regexp.MustCompile(`<a (?:name|id)="([^"]+)"`)
	fence          = regexp.MustCompile("^ {0,3}(```+|~~~+)")
)

// readMarkdown finds links and what they may lead to; not in code.
func readMarkdown(text string) markdownFile {
	doc := markdownFile{anchors: map[string]bool{}}
	open, number := "", 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		if m := fence.FindStringSubmatch(line); m != nil && (open == "" || strings.HasPrefix(m[1], open)) {
			if open == "" {
				open = m[1]
			} else {
				open = ""
			}
			continue
		}
		if open != "" {
			continue
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			doc.addHeading(m[1])
		}
		for _, m := range anchor.FindAllStringSubmatch(line, -1) {
			doc.anchors[m[1]] = true
		}
		bare := codeSpan.ReplaceAllString(line, "code")
		if m := linkDefinition.FindStringSubmatch(bare); m != nil {
			doc.links = append(doc.links, markdownLink{m[1], number})
		}
		for _, m := range inlineLink.FindAllStringSubmatch(bare, -1) {
			doc.links = append(doc.links, markdownLink{m[1], number})
		}
	}
	return doc
}

// addHeading gives a heading the anchor that GitHub gives it: its text in lower case, spaces as
// dashes, without punctuation; a number behind it where there is one such already.
func (doc *markdownFile) addHeading(text string) {
	text = inlineLink.ReplaceAllString(text, "]")
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	name := b.String()
	for n := 1; doc.anchors[name]; n++ {
		name = fmt.Sprintf("%s-%d", b.String(), n)
	}
	doc.anchors[name] = true
}

func checkLink(docs map[string]markdownFile, from, target string) error {
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return err
	case u.Scheme == "http" || u.Scheme == "https":
		if u.Host == "" {
			return fmt.Errorf("no host")
		}
		return nil
	case u.Scheme == "mailto":
		return nil
	case u.Scheme != "" || u.Host != "":
		return fmt.Errorf("neither a web page nor a file of the repository")
	case strings.HasPrefix(u.Path, "/"):
		return fmt.Errorf("not relative")
	}
	to := from
	if u.Path != "" {
		to = path.Join(path.Dir(from), u.Path)
		if strings.HasPrefix(to, "../") {
			return fmt.Errorf("leads out of the repository")
		}
		if _, err := os.Stat(to); err != nil {
			return err
		}
	}
	if u.Fragment == "" {
		return nil
	}
	doc, ok := docs[to]
	if !ok {
		return fmt.Errorf("%s has no headings", to)
	}
	if !doc.anchors[u.Fragment] {
		return fmt.Errorf("%s has no such heading", to)
	}
	return nil
}

// TestLinkChecker has the checker find what is wrong.
func TestLinkChecker(t *testing.T) {
	doc := readMarkdown("# A `b` – c!\n## [Linked](x.md) text\n## Same\n## Same\n```\n# no heading\n[no](link)\n```\n" +
		"[a](#same-1) `[code](none)` ![p](p.png \"title\") [b](<c d>)\n[label]: other.md#x\n<a id=\"mine\"></a>\n")
	for _, name := range []string{"a-b--c", "linked-text", "same", "same-1", "mine"} {
		if !doc.anchors[name] {
			t.Errorf("no anchor %s: %v", name, doc.anchors)
		}
	}
	if doc.anchors["no-heading"] {
		t.Error("code has headings")
	}
	var targets []string
	for _, l := range doc.links {
		targets = append(targets, fmt.Sprintf("%s@%d", l.target, l.line))
	}
	if got := strings.Join(targets, " "); got != "x.md@2 #same-1@9 p.png@9 other.md#x@10" {
		t.Errorf("links %s", got)
	}
	docs := map[string]markdownFile{"README.md": doc, "docs/README.md": doc}
	for target, ok := range map[string]bool{
		"#same-1": true, "#nosuch": false, "go.mod": true, "nosuch.md": false, "README.md#mine": true, "README.md#nosuch": false,
		"go.mod#x": false, "../x": false, "/go.mod": false, "https://example.org/": true, "https:///x": false, "gopher://x/": false, "%zz": false,
	} {
		if err := checkLink(docs, "README.md", target); (err == nil) != ok {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := checkLink(docs, "docs/README.md", "../README.md#same"); err != nil {
		t.Error(err)
	}
}
