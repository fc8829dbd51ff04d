package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// exampleSite is what stands in examples for an image server.
const exampleSite = "https://example.org"

// exampleRegistries are what stand in examples for a registry.
var exampleRegistries = []string{"registry.example.org", "localhost:5000"}

// docsServer has the images that examples are about, and a registry.
type docsServer struct {
	images
	registry string // HOST:PORT
}

// real puts what there is in the place of what an example names.
func (d docsServer) real(command string) string {
	command = strings.ReplaceAll(command, exampleSite, d.server)
	for _, name := range exampleRegistries {
		command = strings.ReplaceAll(command, name, d.registry)
	}
	return command
}

// serveDocs serves Alpine, or what takes its place, and Debian, by names and as files.
func serveDocs(t *testing.T) docsServer {
	t.Helper()
	alpine, err := imageserver.BusyboxImage()
	if err != nil {
		t.Skip(err)
	}
	edge := alpine
	edge.Release = "edge"
	server, err := imageserver.New(alpine, edge, plainDebian(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	server.AddFile("rootfs.tar.xz", alpine.Data)
	return docsServer{images{server: server.URL()}, registrytest.New(t).Host}
}

// A docSession is a shell in which the examples of a page are run.
type docSession struct {
	*machine
	dir    string // where it begins
	server docsServer
}

func newSession(t *testing.T, server docsServer) *docSession {
	t.Helper()
	s := &docSession{machine: newMachine(t, server.images), server: server}
	s.dir = filepath.Join(s.work, "home")
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(s.dir, "examples"), os.DirFS(examples)); err != nil {
		t.Fatal(err)
	}
	// Images of docker.io are in that registry, if they are anywhere.
	s.env = append(s.env, "HOME="+s.dir, "TERM=dumb", "PLASH_REGISTRY_MIRRORS=http://"+server.registry)
	return s
}

// outputMark ends the output of a command; its exit code follows, and a newline.
const outputMark = "\x01\x02"

// fileEnd is a line that no file of a page has.
const fileEnd = "PLASH-DOCS-END"

// show runs the commands of a page and compares what they print.
func (s *docSession) show(page string, blocks []docBlock) {
	s.t.Helper()
	var script strings.Builder
	for _, b := range blocks {
		if b.file != "" {
			script.WriteString("cat >" + b.file + " <<'" + fileEnd + "'\n" + s.server.real(b.text) + fileEnd + "\n")
			if strings.HasPrefix(b.text, "#!") {
				script.WriteString("chmod 755 " + b.file + "\n")
			}
		}
		for _, c := range b.shown {
			script.WriteString(s.server.real(c.command) + "\n")
			script.WriteString("printf '" + outputMark + "%s\\n' $?\n")
		}
	}
	outputs := s.shell(script.String())
	for _, b := range blocks {
		for i, c := range b.shown {
			if len(outputs) == 0 {
				s.t.Fatalf("%s:%d: the shell did not come here", page, c.line)
			}
			output, code, ok := strings.Cut(outputs[0], outputMark)
			outputs = outputs[1:]
			if strings.HasPrefix(c.command, "plash-export-") {
				output = slowWork.ReplaceAllString(output, "")
			}
			fails := b.fails && i == len(b.shown)-1
			switch {
			case !ok:
				s.t.Fatalf("%s:%d: %s: the shell ended:\n%s", page, c.line, c.command, output)
			case fails == (code == "0"):
				s.t.Errorf("%s:%d: %s: exit code %s:\n%s", page, c.line, c.command, code, output)
			case !matches(c.want, output):
				s.t.Errorf("%s:%d: %s\nprints:\n%s\nnot:\n%s", page, c.line, c.command, output, c.want)
			}
		}
	}
	if len(outputs) != 0 {
		s.t.Errorf("%s: at the end: %q", page, outputs)
	}
}

// shell runs a script and returns what it printed up to each mark, the mark and the exit code behind
// it included.
func (s *docSession) shell(script string) []string {
	s.t.Helper()
	file, out := filepath.Join(s.work, "script"), filepath.Join(s.work, "output")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		s.t.Fatal(err)
	}
	output, err := os.Create(out)
	if err != nil {
		s.t.Fatal(err)
	}
	defer output.Close()
	// What is mounted goes with the shell.
	cmd := exec.Command("unshare", "--mount", "bash", file)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.env, s.dir, output, output
	cmd.WaitDelay = time.Minute // for a daemon that keeps the output open
	if err := cmd.Run(); err != nil {
		s.t.Logf("the shell: %v", err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.split(string(b))
}

// slowSteps are what a build says of layers that took long, as on a busy machine all do.
var slowSteps = regexp.MustCompile(`(?m)^took [0-9hms]+\n`)

// slowWork is what an export shows that takes long, though it is small.
var slowWork = regexp.MustCompile(`(?m)^\[0%\|.*\|100%\]\n`)

// split cuts an output behind each mark, and calls things by the names that readers know them by.
func (s *docSession) split(output string) []string {
	output = strings.NewReplacer(s.server.server, exampleSite, s.server.registry, exampleRegistries[0], filepath.Join(s.work, "store"), "/var/lib/plash", s.dir, "/home/you").Replace(output)
	output = slowSteps.ReplaceAllString(output, "")
	var list []string
	for output != "" {
		at := strings.Index(output, outputMark)
		if at < 0 {
			return append(list, output)
		}
		end := strings.IndexByte(output[at:], '\n')
		if end < 0 {
			return append(list, output)
		}
		if _, err := strconv.Atoi(output[at+len(outputMark) : at+end]); err != nil {
			s.t.Fatalf("the mark of an output is followed by %q", output[at:at+end])
		}
		list = append(list, output[:at+end])
		output = output[at+end+1:]
	}
	return list
}

// plainDebian is the image of Debian, uncompressed: that xz takes its time is known.
func plainDebian(t *testing.T) imageserver.Image {
	t.Helper()
	file, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	return imageserver.Image{Dist: "debian", Release: imageserver.DebianSuite, File: file, Item: "root.tar"}
}
