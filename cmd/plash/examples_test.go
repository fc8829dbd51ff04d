package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/imageserver"
)

// TestExamples runs the Plashfiles below examples/ by their own names, from another
// directory, and each once more out of the cache.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages in a Debian root filesystem")
	}
	im, err := imageserver.DebianImage("")
	if err != nil {
		t.Fatal(err)
	}
	server, err := imageserver.New(im)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	e := &examples{newMachine(t, images{server: server.URL()})}
	if e.bin, err = filepath.Abs("../../examples"); err != nil {
		t.Fatal(err)
	}
	t.Run("cc", e.cc)
	t.Run("csvsql", e.csvsql)
	t.Run("webserver", e.webserver)
}

type examples struct{ *machine }

// write makes a file in the directory in which the examples are run.
func (e *examples) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.work, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// runs runs an example and wants what it prints.
func (e *examples) runs(t *testing.T, want, name string, args ...string) {
	t.Helper()
	out, err := e.run(name, args...)
	if err != nil || out != want {
		t.Fatalf("got %q, %v\nwant %q", out, err, want)
	}
}

// cached checks that an example does not build anything any more.
func (e *examples) cached(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd, _, stderr := e.command(name, args...)
	_ = cmd.Run() // with what code is up to the example
	if strings.Contains(stderr.String(), "-->") {
		t.Errorf("it builds again: %s", stderr)
	}
}

func (e *examples) cc(t *testing.T) {
	e.write(t, "hello.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 7; }\n")
	e.runs(t, "", "cc", "-static", "-o", "hello", "hello.c")
	out, err := exec.Command(filepath.Join(e.work, "hello")).Output()
	if string(out) != "hello\n" || err == nil || err.Error() != "exit status 7" {
		t.Errorf("what it compiled: %q, %v", out, err)
	}
	e.write(t, "wrong.c", "int main(void) { return x; }\n")
	if _, err := e.run("cc", "wrong.c"); err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "wrong.c:1:") {
		t.Errorf("a program that is wrong: %v", err)
	}
	e.cached(t, "cc", "--version")
}

func (e *examples) csvsql(t *testing.T) {
	e.write(t, "people.csv", "name,age\nada,36\nbob,7\ncarl,41\n")
	e.write(t, "towns.csv", "name,town\nada,London\ncarl,\"Bonn, Rhein\"\n")
	e.runs(t, "town           age\n-----------  -----\nBonn, Rhein     41\nLondon          36",
		"csvsql", "select town, age from people join towns using (name) order by age desc", "people.csv", "towns.csv")
	if _, err := e.run("csvsql", "select", "people.csv"); err == nil || !strings.Contains(err.Error(), "csvsql: ") {
		t.Errorf("a question that is wrong: %v", err)
	}
	e.cached(t, "csvsql")
}

func (e *examples) webserver(t *testing.T) {
	e.write(t, "page.html", "<p>hello\n")
	port := freePort(t)
	cmd, _, stderr := e.command("webserver", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var body string
	for range 1200 {
		response, err := http.Get("http://127.0.0.1:" + port + "/page.html")
		if err == nil {
			b, readErr := io.ReadAll(response.Body)
			body, err = string(b), readErr
			response.Body.Close()
		}
		if err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the server has ended: %v: %s", err, stderr)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if body != "<p>hello\n" {
		t.Errorf("got %q", body)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
