package image

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/progress"
)

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// engine serves an engine's API on a socket and lets DOCKER_HOST name it.
func engine(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Setenv("PLASH_DOCKER_SOCKET", "")
	t.Setenv("DOCKER_HOST", "unix://"+l.Addr().String())
}

// TestLoad: what an engine gets is a whole archive, and it is believed only when it says
// that it has the image.
func TestLoad(t *testing.T) {
	im := twoLayers(t, ofStore(t))
	for _, c := range []struct {
		name   string
		status int
		answer string
		unread bool
		want   string // part of the error, "": success
	}{
		{name: "loaded", answer: `{"stream":"Loaded image: app:latest\n"}`},
		{name: "several messages", answer: `{"status":"x"}{"stream":"y"}`},
		{name: "failed", answer: `{"stream":"x"}` + "\n" + `{"errorDetail":{"message":"max depth exceeded"},"error":"max depth exceeded"}`, want: "load image: max depth exceeded"},
		{name: "refused", status: 500, answer: `{"message":"no space left on device"}`, want: "no space left"},
		{name: "refused at once", status: 500, answer: `{"cause":"x","message":"no space left on device"}`, unread: true, want: "engine"},
		{name: "refused in words", status: 403, answer: "go away\n", want: "403 Forbidden"},
		{name: "no answer", want: "EOF"},
		{name: "no JSON", answer: "fine", want: "what it says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engine(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/images/load" {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				if !c.unread {
					checkLayout(t, members(t, r.Body), im)
				}
				if c.status != 0 {
					w.WriteHeader(c.status)
				}
				fmt.Fprint(w, c.answer)
			})
			m := progress.NewMeter(nil, 0)
			err := Load(t.Context(), im, m, mustRef(t, "app"))
			if done, total := m.Counts(); total == 0 || !c.unread && done != total {
				t.Errorf("%d bytes of %d counted", done, total)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadNoEngine(t *testing.T) {
	im := twoLayers(t, ofStore(t))
	t.Setenv("PLASH_DOCKER_SOCKET", "")
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none"))
	if err := Load(t.Context(), im, nil, mustRef(t, "app")); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "none") {
		t.Errorf("no socket: %v", err)
	}
	t.Setenv("DOCKER_HOST", "ssh://host")
	if err := Load(t.Context(), im, nil, mustRef(t, "app")); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("ssh: %v", err)
	}
	// A store that fails under way is what the error is about.
	engine(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	im.Layers = im.Layers[1:]
	im.Layers[0].Size += 512
	if err := Load(t.Context(), im, nil, mustRef(t, "app")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short blob: %v", err)
	}
}
