package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/program"
	"github.com/opencontainers/go-digest"
)

func TestKey(t *testing.T) {
	// The keys are a format that machines share.
	for _, tt := range []struct {
		chain  digest.Digest
		script string
		want   string
	}{
		{"", Prologue + "touch /file\n", "da7666d0f5d68ac13c114bab4ea1af41c85c357aca65381c293109431796a335"},
		{digest.FromString("base"), Prologue + "touch /file\n", "11949e3f2e963453f9cc4d25f9fe273d47798d8199047b7059df8e56f73585f5"},
	} {
		if got := Key(tt.chain, nil, tt.script); got != tt.want {
			t.Errorf("Key(%q, %q) = %s, want %s", tt.chain, tt.script, got, tt.want)
		}
	}
	if Key("", nil, "a\nb") == Key("", nil, "a") || Key("x", nil, "") == Key("", nil, "x") {
		t.Error("different layers have one key")
	}
	// White space is not content, and records have no other form than this one.
	config := json.RawMessage("{ \"config\": {\"Env\":[\"A=<b>\"]}}")
	stored := json.RawMessage(`{"config":{"Env":["A=\u003cb\u003e"]}}`)
	const want = "0c7b29035d7efeb624d9b303c8bd62d0210dd46fbc21d52c152a25ee0c4b4600"
	for _, c := range []json.RawMessage{config, stored} {
		if got := Key("x", c, "a"); got != want {
			t.Errorf("with a config: %s, want %s", got, want)
		}
	}
}

func rawOrNil(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// TestSameLayersOtherConfig: what is built on an image is not taken for what is built on another one
// of the same layers, but for that on one of the same config.
func TestSameLayersOtherConfig(t *testing.T) {
	b := newBench(t)
	made := map[container.ID]bool{}
	for _, config := range []string{"", `{"config":{"Env":["A=1"]}}`, `{"config":{"Env":["A=2"]}}`} {
		b.base = b.create(t, 0, "image", rawOrNil(config))
		first, ran := b.build(t, "--run", "a", "--layer", "--run", "b")
		if len(ran) != 2 || made[first] {
			t.Errorf("config %s: container %d, ran %q", config, first, ran)
		}
		made[first] = true
		if config != "" {
			b.base = b.create(t, 0, "image", json.RawMessage(" "+config))
		}
		b.expect(t, first, "", "--run", "a", "--layer", "--run", "b")
		r, err := b.Containers.Get(first)
		if err != nil || string(r.Config) != config {
			t.Errorf("config %s of what was built, %v, want %s", r.Config, err, config)
		}
	}
	// An entrypoint is a config too, whatever else the layer is.
	one, _ := b.build(t, "--entrypoint", "/one", "--layer", "--run", "a")
	two, _ := b.build(t, "--entrypoint", "/two", "--layer", "--run", "a")
	if one == two {
		t.Error("two entrypoints, one container")
	}
}

// A bench is a store with a base image, and a Builder whose scripts are "run" by
// making a layer with one file that holds the script.
type bench struct {
	*Builder
	base container.ID
	log  bytes.Buffer

	mu        sync.Mutex
	ran       []string         // what scripts were run, without the prologue
	inputHook func(dir string) // called with the input of each layer
	hook      func(script string) error
}

// newStore makes the containers of an empty store.
func newStore(t *testing.T) *container.Store {
	t.Helper()
	dir := t.TempDir()
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	cs, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := container.Open(cs)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newBench(t *testing.T) *bench {
	t.Helper()
	store := newStore(t)
	b := &bench{}
	b.Builder = &Builder{Containers: store, ResolveImage: b.resolve, RunLayer: b.run, Stderr: &b.log}
	b.base = b.create(t, 0, "base", nil)
	return b
}

func (b *bench) resolve(_ context.Context, name string) (container.ID, error) {
	if name != "base" {
		return b.Containers.Resolve(name)
	}
	return b.base, nil
}

func (b *bench) run(ctx context.Context, parent container.ID, script, input string) (*cas.Staged, error) {
	if _, err := b.Containers.Get(parent); err != nil {
		return nil, err
	}
	script = strings.TrimPrefix(script, Prologue)
	b.mu.Lock()
	b.ran = append(b.ran, script)
	hook := b.hook
	b.mu.Unlock()
	if b.inputHook != nil {
		b.inputHook(input)
	}
	if hook != nil {
		if err := hook(script); err != nil {
			return nil, err
		}
	}
	return b.stage(ctx, script)
}

// stage makes a layer with one file.
func (b *bench) stage(ctx context.Context, content string) (*cas.Staged, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "script", Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return b.Containers.CAS().Ingest(ctx, &buf, cas.IngestOptions{})
}

func (b *bench) create(t *testing.T, parent container.ID, content string, config json.RawMessage) container.ID {
	t.Helper()
	staged, err := b.stage(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Containers.Create(t.Context(), parent, staged, container.CreateOptions{
		Origin: container.Origin{Kind: "import", From: content}, Config: config,
	})
	if err = errors.Join(err, staged.Close()); err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// build builds actions and returns the id, and what was run.
func (b *bench) build(t *testing.T, actions ...string) (container.ID, []string) {
	t.Helper()
	b.ran = nil
	b.log.Reset()
	id, err := b.Build(t.Context(), parse(t, append([]string{"--image=base"}, actions...)...))
	if err != nil {
		t.Fatalf("build %q: %v", actions, err)
	}
	if want := strings.Repeat("--:\n", len(b.ran)); b.log.String() != want {
		t.Errorf("build %q: log %q, want %q", actions, &b.log, want)
	}
	return id, b.ran
}

// expect checks what a build gave.
func (b *bench) expect(t *testing.T, want container.ID, ran string, actions ...string) {
	t.Helper()
	id, got := b.build(t, actions...)
	if id != want || strings.Join(got, "") != ran {
		t.Errorf("build %q: container %d, ran %q; want %d, %q", actions, id, got, want, ran)
	}
}

func TestBuildAndCache(t *testing.T) {
	b := newBench(t)
	b.expect(t, 1, "")
	b.expect(t, 1, "", "--layer", "--comment", "x", "--layer")
	b.expect(t, 2, "a\n", "-x", "a")
	b.expect(t, 2, "", "-x", "a")
	b.expect(t, 3, "b\n", "-x", "a", "-l", "-x", "b")
	b.expect(t, 3, "", "-x", "a", "-l", "-x", "b")
	b.expect(t, 4, "b\n", "-x", "b")
	b.expect(t, 2, "", "-x", "a")

	r, err := b.Containers.Get(3)
	if err != nil {
		t.Fatal(err)
	}
	if r.Parent != 2 || r.Origin.Kind != "build" || r.Origin.From != Prologue+"b\n" || r.Depth != 3 {
		t.Errorf("record: %+v", r)
	}

	// What is gone is built again, and only that.
	if err := b.Containers.Remove(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	b.expect(t, 5, "b\n", "-x", "a", "-l", "-x", "b")
	if err := b.Containers.Remove(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	b.expect(t, 7, "a\nb\n", "-x", "a", "-l", "-x", "b")
}

// What --import-env takes counts, and is neither recorded nor shown.
func TestImportedValuesAreNotKept(t *testing.T) {
	b := newBench(t)
	actions := []string{"--import-env", "PLASH_TEST_SECRET:AS", "-x", "a"}
	t.Setenv("PLASH_TEST_SECRET", "one")
	first, _ := b.build(t, actions...)
	t.Setenv("PLASH_TEST_SECRET", "two")
	second, _ := b.build(t, actions...)
	if first == second {
		t.Errorf("two values give one container, %d", first)
	}
	r, err := b.Containers.Get(second)
	if err != nil {
		t.Fatal(err)
	}
	if want := Prologue + "# import-env PLASH_TEST_SECRET:AS\na\n"; r.Origin.From != want {
		t.Errorf("recorded %q, want %q", r.Origin.From, want)
	}
	b.hook = func(string) error { return &runtime.CommandError{Code: 1} }
	t.Setenv("PLASH_TEST_SECRET", "three")
	_, err = b.Build(t.Context(), parse(t, "--image=base", "--import-env", "PLASH_TEST_SECRET"))
	if err == nil || strings.Contains(err.Error(), "three") {
		t.Errorf("error %v", err)
	}
}

// Keys are made of content: another base with the same content is as good.
func TestCacheGoesByContent(t *testing.T) {
	b := newBench(t)
	b.expect(t, 2, "a\n", "-x", "a")
	same := b.create(t, 0, "base", nil)
	other := b.create(t, 0, "other", nil)
	for image, want := range map[container.ID]container.ID{same: 2, other: 5} {
		id, err := b.Build(t.Context(), parse(t, "-i", image.String(), "-x", "a"))
		if err != nil || id != want {
			t.Errorf("on %d: got %d, %v, want %d", image, id, err, want)
		}
	}
}

func TestNoCache(t *testing.T) {
	b := newBench(t)
	b.expect(t, 2, "a\n", "-x", "a")
	b.NoCache = true
	b.expect(t, 3, "a\n", "-x", "a")
	b.NoCache = false
	b.expect(t, 3, "", "-x", "a")

	b.expect(t, 4, "# never cached\na\n", "--bust-cache", "-x", "a")
	// What lies on it is found: its content is the same.
	b.expect(t, 6, "# never cached\na\nb\n", "--bust-cache", "-x", "a", "-l", "-x", "b")
	b.expect(t, 6, "# never cached\na\n", "--bust-cache", "-x", "a", "-l", "-x", "b")
}

func TestNamespacesAreApart(t *testing.T) {
	b := newBench(t)
	b.expect(t, 2, "a\n", "-x", "a")
	b.expect(t, 3, "# namespace \"n\"\na\n", "--namespace", "n", "-x", "a")
	b.expect(t, 3, "", "--namespace", "n", "-x", "a")
	b.expect(t, 4, "# namespace \"m\"\na\n", "--namespace", "m", "-x", "a")
}

func TestEntrypointConfig(t *testing.T) {
	b := newBench(t)
	b.base = b.create(t, 0, "image", json.RawMessage(`{"os":"linux","config":{"Env":["A=1"],"Entrypoint":["/old"],"Cmd":["x"]},"big":12345678901234567890}`))
	check := func(id container.ID, want string) {
		t.Helper()
		r, err := b.Containers.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Config) != want {
			t.Errorf("container %d: config %s, want %s", id, r.Config, want)
		}
	}
	id, _ := b.build(t, "--entrypoint", "/new", "-x", "a", "-l", "-x", "b")
	const want = `{"big":12345678901234567890,"config":{"Entrypoint":["/new"],"Env":["A=1"]},"os":"linux"}`
	check(id-1, want)
	check(id, want)
	if same, ran := b.build(t, "--entrypoint", "/new", "-x", "a", "-l", "-x", "b"); same != id || len(ran) > 0 {
		t.Errorf("not cached: %d, %q", same, ran)
	}
	if other, _ := b.build(t, "--entrypoint", "/other", "-x", "a"); other == id-1 {
		t.Error("another entrypoint is the same container")
	}
	b.base = b.create(t, 0, "plain", nil)
	id, _ = b.build(t, "-x", "a", "-l", "--entrypoint-script", "b")
	check(id-1, "")
	check(id, `{"config":{"Entrypoint":["/entrypoint"]}}`)
}

func TestBuildErrors(t *testing.T) {
	b := newBench(t)
	if _, err := b.Build(t.Context(), parse(t, "-x", "a")); !errors.Is(err, ErrNoImage) {
		t.Errorf("no image: got %v", err)
	}
	if _, err := b.Build(t.Context(), parse(t, "-i", "99", "-x", "a")); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("no such image: got %v", err)
	}
	if _, err := b.Build(t.Context(), parse(t, "-i", "base", "--watch", "/no/such/path")); err == nil || !strings.Contains(err.Error(), "--watch /no/such/path: ") {
		t.Errorf("unreadable: got %v", err)
	}
	if len(b.ran) > 0 {
		t.Errorf("ran %q", b.ran)
	}
	broken := errors.New("mount: broken")
	b.hook = func(string) error { return broken }
	_, err := b.Build(t.Context(), parse(t, "-i", "base", "-x", "a"))
	var step *StepError
	if !errors.Is(err, broken) || errors.As(err, &step) {
		t.Errorf("plash's own failure: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.hook = func(string) error { cancel(); return &runtime.CommandError{Code: 130} }
	if _, err := b.Build(ctx, parse(t, "-i", "base", "-x", "a")); err == nil || errors.As(err, &step) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestStepError(t *testing.T) {
	b := newBench(t)
	b.hook = func(script string) error {
		switch script {
		case "bad\n", "one\nbad\n":
			return fmt.Errorf("wrapped: %w", &runtime.CommandError{Code: 7})
		case "killed\n":
			return &runtime.CommandError{Code: 137, Signal: 9}
		case "no shell\n":
			return &program.ExitError{Code: 127, Err: errors.New("sh: not found in the container")}
		case "no mount\n":
			return &program.ExitError{Code: 125, Err: errors.New("mount: denied")}
		}
		return nil
	}
	for _, tt := range []struct {
		actions string
		msg     string
		code    int // 0: no StepError
		parent  container.ID
	}{
		{"-x ok -l -x bad -l -x never", "layer 2 of 3: wrapped: command failed with exit code 7: bad", 7, 2},
		{"-x bad", "wrapped: command failed with exit code 7: bad", 7, 1},
		{"-x one bad", "wrapped: command failed with exit code 7: its last lines are above", 7, 1},
		{"-x killed", "command killed by signal 9 (killed): killed", 137, 1},
		{"-x=no␣shell", "sh: not found in the container", 127, 1},
		{"-x=no␣mount", "build layer 1 of 1: mount: denied", 0, 0},
	} {
		args := strings.Split("-i base "+strings.ReplaceAll(tt.actions, "-x=", "--run="), " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "␣", " ")
		}
		_, err := b.Build(t.Context(), parse(t, args...))
		if err == nil || err.Error() != tt.msg {
			t.Errorf("%s: got %v, want %s", tt.actions, err, tt.msg)
			continue
		}
		var exit *program.ExitError
		if errors.As(err, &exit) {
			t.Errorf("%s: carries an exit code that is not a build's", tt.actions)
		}
		var step *StepError
		if !errors.As(err, &step) {
			if tt.code != 0 {
				t.Errorf("%s: not a StepError: %v", tt.actions, err)
			}
			continue
		}
		if step.Code != tt.code || step.Parent != tt.parent {
			t.Errorf("%s: %+v, want code %d on %d", tt.actions, step, tt.code, tt.parent)
		}
		if want := fmt.Sprintf("plash-run %d ", tt.parent); !strings.HasPrefix(step.Hint(), want) {
			t.Errorf("%s: hint %q", tt.actions, step.Hint())
		}
	}
	// The layer below the one that failed is there.
	b.expect(t, 2, "", "-x", "ok")
}

func TestOnlyCommand(t *testing.T) {
	for script, want := range map[string]string{
		"a\n":              "a",
		"# x\n\n  a b\n":   "a b",
		"a\nb\n":           "",
		"":                 "",
		"# only comment\n": "",
	} {
		if got := onlyCommand(Prologue + script); got != want {
			t.Errorf("%q: got %q, want %q", script, got, want)
		}
	}
	if got := shorten(strings.Repeat("ü", 200)); len([]rune(got)) != 101 {
		t.Errorf("got %q", got)
	}
}

// Two that want the same layer build it once.
func TestBuildTogether(t *testing.T) {
	b := newBench(t)
	b.Stderr = io.Discard
	plan := parse(t, "-i", "base", "-x", "a", "-l", "-x", "b", "-l", "-x", "c")
	var group sync.WaitGroup
	ids := make([]container.ID, 8)
	for i := range ids {
		group.Go(func() {
			var err error
			if ids[i], err = b.Build(t.Context(), plan); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("containers %v", ids)
			break
		}
	}
	if len(b.ran) != 3 {
		t.Errorf("ran %q", b.ran)
	}
}

// A container that others remove while it is built on is built again.
func TestRemovedWhileBuilding(t *testing.T) {
	b := newBench(t)
	removed := false
	b.hook = func(script string) error {
		if script == "b\n" && !removed {
			removed = true
			return b.Containers.Remove(t.Context(), 2)
		}
		return nil
	}
	id, ran := b.buildQuietly(t, "-x", "a", "-l", "-x", "b")
	if want := "a\nb\na\nb\n"; strings.Join(ran, "") != want {
		t.Errorf("ran %q, want %q", ran, want)
	}
	if _, err := b.Containers.Get(id); err != nil {
		t.Error(err)
	}
	b.hook = func(script string) error {
		if script != "d\n" {
			return nil
		}
		id, _, err := b.Containers.Lookup(Key(b.chain(t, b.base), nil, Prologue+"c\n"))
		return errors.Join(err, b.Containers.Remove(t.Context(), id))
	}
	if _, err := b.Build(t.Context(), parse(t, "-i", "base", "-x", "c", "-l", "-x", "d")); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("removed each time: got %v", err)
	}
}

func (b *bench) buildQuietly(t *testing.T, actions ...string) (container.ID, []string) {
	t.Helper()
	b.ran = nil
	id, err := b.Build(t.Context(), parse(t, append([]string{"--image=base"}, actions...)...))
	if err != nil {
		t.Fatal(err)
	}
	return id, b.ran
}

func (b *bench) chain(t *testing.T, id container.ID) digest.Digest {
	t.Helper()
	r, err := b.Containers.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return r.Chain
}
