package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/ids"
)

// A Host is what plash can use where it runs, found out by doing it.
type Host struct {
	Kernel     string      `json:"kernel"`
	UID        int         `json:"uid"`
	Mechanisms []Mechanism `json:"mechanisms"`
	Choices    []Choice    `json:"choices"`
}

// A Mechanism is something that a host may let plash do, or not.
type Mechanism struct {
	Name   string `json:"name"`
	Works  bool   `json:"works"`
	Detail string `json:"detail,omitempty"` // what is used, or why it does not work
	Hint   string `json:"hint,omitempty"`   // how to make it work
}

// A Choice is the backend for a task.
type Choice struct {
	Task    string    `json:"task"`    // "run", "build" or "mount"
	Backend string    `json:"backend"` // "" if there is none
	Passed  []Passing `json:"passed"`  // what would have been better, and why it is not used
}

// A Passing is a backend that was passed over.
type Passing struct {
	Backend string `json:"backend"`
	Reason  string `json:"reason"`
}

// Examine finds out what works on this host with this store, on a store of its own that lies in
// there for the time.
func Examine(ctx context.Context, s *cas.Store) (_ *Host, err error) {
	scratch, err := s.Scratch("doctor")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	forgetProbed(s)
	x, err := newExamination(ctx, filepath.Join(scratch.Path(), "store"))
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	h := &Host{Kernel: kernelRelease(), UID: os.Geteuid()}
	// What a process finds that may mount, in namespaces of its own if need be, and what one
	// finds whose mounts everybody sees.
	var inside, outside *findings
	var refused error
	if needsStage() {
		inside, refused = x.inStage(ctx)
		h.add(userNamespaces(refused))
		h.add(subordinateIDs())
		outside, err = x.examine(ctx, false)
	} else {
		refused = inNamespace(func() (err error) {
			inside, err = x.examine(ctx, true)
			return err
		})
		h.add(Mechanism{Name: "mounts", Works: refused == nil, Detail: reasonOf(refused)})
		outside = inside
		if inside == nil {
			outside, err = x.examine(ctx, false)
		}
	}
	if err != nil {
		return nil, err
	}
	seen := inside
	if seen == nil {
		seen = outside
	}
	h.Mechanisms = append(h.Mechanisms, seen.Mechanisms...)
	if needsStage() {
		h.add(fusermount())
	}
	h.add(chroot())
	h.add(prootProgram(inside != nil))
	if inside == nil {
		inside = nothing(refused)
	}
	h.choose("run", order(true, inside.UserNS), inside.Run)
	h.choose("build", order(true, inside.UserNS), inside.Build)
	h.choose("mount", order(false, inUserNamespace()), outside.Look)
	h.copies(s)
	return h, nil
}

// nothing are the findings where nothing can be mounted, which has one reason.
func nothing(reason error) *findings {
	f := newFindings()
	for _, b := range backends() {
		f.Run[b.name], f.Build[b.name] = reasonOf(reason), reasonOf(reason)
	}
	return f
}

// copies has work done in copies where nothing is to be had that is mounted.
func (h *Host) copies(s *cas.Store) {
	for i := range h.Choices {
		c := &h.Choices[i]
		if c.Backend != "" || c.Task == "mount" {
			continue
		}
		way, err := findWay(s, c.Task == "build")
		switch {
		case err != nil:
			c.Passed = append(c.Passed, Passing{"copy", reasonOf(err)})
		case way.proot != "":
			c.Backend = "proot"
		default:
			c.Backend = "copy"
		}
	}
}

func (h *Host) add(m Mechanism) { h.Mechanisms = append(h.Mechanisms, m) }

// choose picks the first backend that had no reason against it.
func (h *Host) choose(task string, names []string, reasons map[string]string) {
	c := Choice{Task: task, Passed: []Passing{}}
	for _, name := range names {
		reason, tried := reasons[name]
		if tried && reason == "" {
			c.Backend = name
			break
		}
		c.Passed = append(c.Passed, Passing{name, reason})
	}
	h.Choices = append(h.Choices, c)
}

// findings are what a process found out.
type findings struct {
	Mechanisms       []Mechanism
	Run, Build, Look map[string]string // by backend: why it does not do, "" if it does
	UserNS           bool
}

func newFindings() *findings {
	return &findings{Run: map[string]string{}, Build: map[string]string{}, Look: map[string]string{}, UserNS: inUserNamespace()}
}

// An examination has a store with a container in it, to try things with.
type examination struct {
	store *cas.Store
	layer overlay.Layer
}

// openExamination opens the store that newExamination made.
func openExamination(s *cas.Store) (*examination, error) {
	blobs, err := filepath.Glob(filepath.Join(s.Dir(), "blobs/sha256/*"))
	if err != nil || len(blobs) != 1 {
		return nil, fmt.Errorf("%d blobs to try with: %w", len(blobs), err)
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(blobs[0]))
	return &examination{s, overlay.Layer{Digest: d}}, nil
}

func newExamination(ctx context.Context, dir string) (*examination, error) {
	if err := cas.Init(dir); err != nil {
		return nil, err
	}
	s, err := cas.Open(dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5})
	if err == nil {
		_, err = w.Write([]byte("plash"))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	staged, err := s.Ingest(ctx, &b, cas.IngestOptions{})
	if err != nil {
		return nil, err
	}
	// Nobody else knows the store, so there is nobody to lock out.
	if err := errors.Join(staged.Publish(), staged.Close()); err != nil {
		return nil, err
	}
	return openExamination(s)
}

// inStage examines what a stage can do.
func (x *examination) inStage(ctx context.Context) (_ *findings, err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(out)
		read <- result{text, err}
	}()
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		s, err := startStage(ids.AsRoot, unix.SIGKILL, stageFiles{stderr: os.Stderr, tar: in}, stageConfig{Store: x.store.Dir(), Examine: true})
		err = errors.Join(err, in.Close())
		if s == nil {
			done <- err
			return
		}
		o, said, toldErr := s.told()
		err = errors.Join(err, toldErr, ignoreExit(s.cmd.Wait()), s.close())
		if said {
			err = errors.Join(err, o.err())
		}
		done <- err
	}()
	err = <-done
	r := <-read
	if err = errors.Join(err, r.err); err != nil {
		return nil, err
	}
	var f findings
	if err := json.Unmarshal(r.text, &f); err != nil {
		return nil, fmt.Errorf("read what the stage found: %w", err)
	}
	return &f, nil
}

// ignoreExit leaves errors of waiting that say more than that a process ended badly.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// examine tries all backends, as far as this process can: in a mount namespace of this
// thread, unless only what is seen by all counts.
func (x *examination) examine(ctx context.Context, private bool) (*findings, error) {
	f := newFindings()
	for _, b := range backends() {
		if b.open == nil {
			continue
		}
		f.Look[b.name] = reasonOf(x.look(ctx, b, private))
		if private {
			f.Run[b.name] = reasonOf(x.run(ctx, b))
			f.Build[b.name] = reasonOf(x.build(ctx, b))
		}
	}
	for _, m := range []struct {
		name, hint string
		err        error
	}{
		{"overlayfs", "", overlay.ProbeOverlay()},
		{"EROFS", "", asError(f.Look["erofs"])},
		{"FUSE", fuseHint(), asError(f.Look["fuse"])},
	} {
		found := Mechanism{Name: m.name, Works: m.err == nil, Detail: reasonOf(m.err)}
		if m.err != nil {
			found.Hint = m.hint
		}
		f.Mechanisms = append(f.Mechanisms, found)
	}
	return f, nil
}

func asError(reason string) error {
	if reason == "" {
		return nil
	}
	return errors.New(reason)
}

func (x *examination) image() *image {
	return &image{cas: x.store, layers: []overlay.Layer{x.layer}, host: &probed{Unable: map[string]bool{}}}
}

// look mounts the container to look at it.
func (x *examination) look(ctx context.Context, b backend, private bool) (err error) {
	im := x.image()
	m, err := b.open(im, ctx, overlay.Options{Source: "plash-0", Flat: staged != nil && staged.Flat})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(), im.close()) }()
	if m.FD() >= 0 && private {
		return nil
	}
	// As a user by fusermount3, or an old kernel: there is no mount yet.
	dir, err := os.MkdirTemp(x.store.Dir(), "look")
	if err == nil {
		err = m.AttachTo(dir)
	}
	if err != nil {
		return err
	}
	return errors.Join(m.Close(), Unmount(dir), os.Remove(dir))
}

// run has what is written in memory, as a run does.
func (x *examination) run(ctx context.Context, b backend) (err error) {
	dir, err := mountMemory(x.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	return x.work(ctx, b, dir)
}

// build has it in the store, as a build step does, or in memory if the store cannot hold an
// upper directory.
func (x *examination) build(ctx context.Context, b backend) error {
	dir, err := os.MkdirTemp(x.store.Dir(), "work")
	if err != nil {
		return err
	}
	err = x.work(ctx, b, dir)
	if errors.Is(err, overlay.ErrUpper) || errors.Is(err, unix.EOPNOTSUPP) {
		return x.run(ctx, b)
	}
	return err
}

// work mounts the container to work in it, with an upper directory in dir.
func (x *examination) work(ctx context.Context, b backend, dir string) (err error) {
	im := x.image()
	upper, work := filepath.Join(dir, "u"), filepath.Join(dir, "w")
	if err := makeUpper(ctx, im, upper, work); err != nil {
		return err
	}
	m, err := b.open(im, ctx, overlay.Options{Upper: upper, Work: work, Volatile: true, Source: "plash-0", Flat: staged != nil && staged.Flat})
	if err != nil {
		return err
	}
	fd, err := unix.Openat(m.FD(), "new", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err == nil {
		err = unix.Close(fd)
	}
	return errors.Join(err, m.Close(), im.close())
}

// aboutNames is what errors say of an examination's own container.
func aboutNames() *regexp.Regexp {
	return regexp.MustCompile(`mount container with backend \w+: |mount container with FUSE: |mount index \S+ with 1 blobs: |mount overlayfs of 1 layers with upper directory \S+: `)
}

// reasonOf is an error in a line, without what everyone knows.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	lines := strings.Split(err.Error(), "\n")
	about := aboutNames()
	for i, line := range lines {
		lines[i] = about.ReplaceAllString(line, "")
	}
	text := strings.Join(slices.Compact(lines), "; ")
	for _, known := range []string{
		overlay.ErrNoOverlay.Error() + ": ", overlay.ErrUnsupported.Error() + ": ", ErrNoNamespaces.Error() + ": ",
	} {
		text = strings.ReplaceAll(text, known, "")
	}
	return text
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func inUserNamespace() bool { return userns.RunningInUserNS() }

// examineStaged is the stage's side of inStage.
func examineStaged(ctx context.Context, s *cas.Store, to io.Writer) error {
	x, err := openExamination(s)
	if err != nil {
		return err
	}
	f, err := x.examine(ctx, true)
	if err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(f)
}
