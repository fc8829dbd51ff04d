package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ihucos/plash/build"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the manual's pages anew")

// Where the manual is: the same pages for man(1) and for readers of the repository.
const (
	manDir      = "../../man"
	markdownDir = "../../docs/commands"
)

// TestManual holds the pages of the manual against the commands' own help, of which they are
// made, or writes them anew ("make docs").
func TestManual(t *testing.T) {
	pages := map[string]string{}
	for _, e := range commands() {
		c := newCommand(e.name)
		c.addHelpOption()
		pages[filepath.Join(manDir, binary+"-"+e.name+".1")] = manPage(e, c)
		pages[filepath.Join(markdownDir, binary+"-"+e.name+".md")] = markdownPage(e, c)
	}
	pages[filepath.Join(manDir, binary+".1")] = manOverview()
	pages[filepath.Join(markdownDir, "README.md")] = markdownOverview()
	for _, dir := range []string{manDir, markdownDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := filepath.Join(dir, name.Name())
			if _, ok := pages[path]; ok {
				continue
			}
			if !*update {
				t.Errorf("%s: no command has this page; \"make docs\" removes it", path)
			} else if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	}
	for path, text := range pages {
		comparePage(t, path, text)
	}
}

func comparePage(t *testing.T, path, text string) {
	t.Helper()
	old, err := os.ReadFile(path)
	switch {
	case err == nil && string(old) == text:
	case *update:
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	default:
		t.Errorf("%s is not what the help of the command says (%v); \"make docs\" writes it anew", path, err)
	}
}

// A paragraph of a command's help.
type paragraph struct {
	text string
	pre  bool // lines that stay as they are: they are indented
}

func paragraphs(text string) []paragraph {
	var list []paragraph
	for p := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(p, "  ") {
			list = append(list, paragraph{strings.ReplaceAll(strings.TrimPrefix(p, "  "), "\n  ", "\n"), true})
		} else {
			list = append(list, paragraph{strings.Join(strings.Fields(p), " "), false})
		}
	}
	return list
}

// typedWords are what a reader would type as it stands: options, commands, variables, paths.
var typedWords = regexp.MustCompile(`--[a-z][a-z-]*|\bplash-[a-z]+(?:-[a-z]+)*|\bPLASH_[A-Z_]+(?:=[a-z0-9]+)?|~?(?:/[a-z][a-z_.-]*)+`)

// marked gives text in which typed words are marked up by one function, and what is between them
// by another.
func marked(text string, typed, other func(string) string) string {
	var b strings.Builder
	at := 0
	for _, m := range typedWords.FindAllStringIndex(text, -1) {
		word := strings.TrimRight(text[m[0]:m[1]], ".-")
		if m[0] > 0 && !strings.ContainsAny(text[m[0]-1:m[0]], " (\"=,") {
			continue // a part of a word: and/or
		}
		b.WriteString(other(text[at:m[0]]) + typed(word))
		at = m[0] + len(word)
	}
	b.WriteString(other(text[at:]))
	return b.String()
}

// optionForms are an option's spellings, and what its value is called.
func optionForms(f *pflag.Flag) (forms []string, value, usage string) {
	value, usage = pflag.UnquoteUsage(f)
	if f.Shorthand != "" {
		forms = append(forms, "-"+f.Shorthand)
	}
	return append(forms, "--"+f.Name), value, usage
}

// actionGroups are the build actions by their headings.
func actionGroups() (groups []string, actions map[string][]build.Action) {
	actions = map[string][]build.Action{}
	for _, a := range build.Actions() {
		if actions[a.Group] == nil {
			groups = append(groups, a.Group)
		}
		actions[a.Group] = append(actions[a.Group], a)
	}
	return groups, actions
}

// commandGroups are the commands by their headings.
func commandGroups() (groups []string, entries map[string][]commandEntry) {
	entries = map[string][]commandEntry{}
	for _, e := range commands() {
		if entries[e.group] == nil {
			groups = append(groups, e.group)
		}
		entries[e.group] = append(entries[e.group], e)
	}
	return groups, entries
}

// environment are the variables that all commands know.
var environment = [][2]string{
	{"PLASH_DATA", "the store; else /var/lib/plash for root, and $XDG_DATA_HOME/plash or ~/.local/share/plash for others"},
	{"PLASH_BACKEND", "how containers are mounted: erofs, unpack, fuse, union, copy or proot, in place of the best that works"},
	{"PLASH_NO_CACHE", "1: build every layer, whatever is there"},
	{"PLASH_PROGRESS", "plain, tty or none: how progress is shown, whatever standard error is"},
	{"NO_COLOR", "if it is not empty, logs have no colors"},
	{"PLASH_LXC_SERVER", "the URL of an image server to use in place of https://images.linuxcontainers.org"},
	{"PLASH_DOCKER_SOCKET", "the socket that plash-docker and plash-docker-daemon talk through"},
	{"PLASH_CACHE_FROM", "repositories that layers are taken from in place of building them, as --cache-from of plash-build"},
	{"PLASH_CACHE_TO", "the repository that built layers are sent to, as --cache-to of plash-build"},
	{"PLASH_REGISTRY_MIRRORS", "[HOST=]URL,…: registries to ask before HOST, or before docker.io; else those of registries.conf, or of /etc/docker/daemon.json"},
	{"CONTAINERS_REGISTRIES_CONF", "the registries.conf to read, as Podman does; else ~/.config/containers/registries.conf or /etc/containers/registries.conf"},
	{"PLASH_INSECURE_REGISTRIES", "HOST,…: registries that may be spoken to without TLS, or with a certificate that nobody vouches for, as insecure = true in registries.conf"},
	{"PLASH_MAX_IMAGE_SIZE", "how many bytes an image may unpack to (200G), 0 for any number; else 2 GiB and 64 times its size, and 1 TiB"},
	{"PLASH_REPLAY", "off: do not use or make the plans by which later runs of a container start faster"},
}

// exitCodes are what commands end with.
var exitCodes = [][2]string{
	{"0", "done"},
	{"1", "failed"},
	{"2", "the command line makes no sense"},
	{"3", "no such container"},
	{"4", "the command of a build step failed"},
	{"125", "plash-run, plash-exec, plash-with-mount and the like: plash itself failed before the command was started"},
	{"126", "of these: the command was found but cannot be executed"},
	{"127", "of these: the command was not found"},
	{"N, 128+N", "of these: what the command ended with; 128 more than the number of the signal that killed it"},
	{"130", "interrupted (128+N after signal N)"},
}

// What is said of the whole.
const (
	overviewTitle = "containers that are just processes"
	overviewText  = "Builds and runs containers that are just processes: a command in another root " +
		"filesystem, with the user, the terminal, the network and the signals of the caller. " +
		"plash-NAME and plash NAME are the same; --help explains each."
	containerText = "A CONTAINER is a number, @KEY (a name that plash-map has given), or build actions: where " +
		"the first word begins with a dash and is no option of the command, the words up to the first -- are " +
		"given to plash-build, and what it builds is taken."
)

// Variables that are read somewhere are in the manual.
func TestManualHasVariables(t *testing.T) {
	// What plash tells its own processes.
	internal := map[string]bool{"PLASH_SCRIPT": true, "PLASH_PATH": true, "PLASH_UNION_SERVE": true}
	known := map[string]bool{}
	for _, v := range environment {
		known[v[0]] = true
	}
	literal := regexp.MustCompile(`"((?:PLASH|NO)_[A-Z_]+)=?"`)
	seen := 0
	for _, dir := range []string{".", "../../build", "../../cas", "../../container", "../../fusefs", "../../importexport", "../../overlay", "../../replay", "../../runtime"} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/imageserver/") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range literal.FindAllSubmatch(text, -1) {
				name := string(m[1])
				seen++
				if !known[name] && !internal[name] && !strings.HasPrefix(name, "PLASH_TEST_") {
					t.Errorf("%s: %s is not in the manual", path, name)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if seen < 5 {
		t.Errorf("found %d variables", seen)
	}
}
