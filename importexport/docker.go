package importexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"golang.org/x/sys/unix"
)

// ImportDocker makes containers of an image of Docker or OCI, one for each layer, and returns the
// top one, which has the image's config. The name is as skopeo has them, see [image.ParseRef]; one
// without a transport is that of an image in a local engine, or else in its registry.
//
// The name of an image in a registry is asked for once, like those of
// [ImportLXC]; engines and files are looked at again each time, and what the store has is not read.
func ImportDocker(ctx context.Context, st *container.Store, name string, o Options) (container.ID, error) {
	id, err := importDocker(ctx, st, name, o)
	if err != nil {
		return 0, fmt.Errorf("import %w", err)
	}
	return id, nil
}

func importDocker(ctx context.Context, st *container.Store, name string, o Options) (id container.ID, err error) {
	r, err := image.ParseRef(name)
	if err != nil {
		return 0, err
	}
	d := dockerImport{st: st, ref: r, o: o}
	if d.platform, err = image.ParsePlatform(o.Platform); err != nil {
		return 0, err
	}
	if d.maxSize, err = maxImageSize(os.Getenv(image.SizeVariable)); err != nil {
		return 0, err
	}
	switch r.Transport {
	case image.Layout:
		id, err = d.fromFile(ctx)
	case image.DockerArchive, image.Archive:
		id, err = d.fromArchive(ctx)
	case image.Engine:
		id, err = d.fromEngine(ctx)
	case image.Registry:
		id, err = d.fromRegistry(ctx)
	default:
		id, err = d.fromEngine(ctx)
		var none *noEngineError
		if errors.As(err, &none) {
			id, err = d.fromRegistry(ctx)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", r, err)
	}
	return id, nil
}

// dockerImport is the import of one image.
type dockerImport struct {
	st       *container.Store
	ref      image.Ref
	platform image.Platform
	maxSize  int64
	o        Options
}

// fromFile reads a layout or an archive.
func (d *dockerImport) fromFile(ctx context.Context) (_ container.ID, err error) {
	im, err := image.Open(ctx, d.st.CAS(), d.ref, d.openOptions())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	return d.keep(ctx, im, d.o.display())
}

func (d *dockerImport) openOptions() image.OpenOptions {
	return image.OpenOptions{Platform: d.platform, MaxSize: d.maxSize, Display: d.o.display()}
}

// keep makes the containers. Whoever has been told how the image comes in gives no display.
func (d *dockerImport) keep(ctx context.Context, im *image.Image, display progress.Display, keys ...string) (container.ID, error) {
	c, done := d.o.newClient()
	defer done()
	return image.Keep(ctx, d.st, im, image.KeepOptions{
		From: d.ref.String(), Keys: keys, MaxSize: d.maxSize, Display: display,
		Fetch: func(ctx context.Context, rawURL string) (io.ReadCloser, error) {
			u, err := parseURL(rawURL)
			if err != nil {
				return nil, err
			}
			return closedStream{c.Open(ctx, u, -1, progress.Quiet{})}, nil
		},
	})
}

// closedStream is a download that is closed as files are.
type closedStream struct{ *fetch.Stream }

func (d closedStream) Close() error {
	d.Stream.Close()
	return nil
}

// fromArchive reads an archive, unless it is as it was when it was last read.
func (d *dockerImport) fromArchive(ctx context.Context) (_ container.ID, err error) {
	// A pipe that nobody writes to is not waited for here.
	f, err := os.OpenFile(d.ref.Path, unix.O_PATH, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	now := time.Now()
	before, err := stat(f)
	if err != nil {
		return 0, err
	}
	if before.mode&unix.S_IFMT != unix.S_IFREG {
		return d.fromFile(ctx)
	}
	abs, err := filepath.Abs(d.ref.Path)
	if err != nil {
		return 0, err
	}
	key := before.key(abs) + "\n" + d.ref.String() + "\n" + d.o.Platform
	return cached(ctx, d.st, key, d.o.Refresh, func() (container.ID, error) {
		id, err := d.fromFile(ctx)
		if err != nil {
			return 0, err
		}
		// What was read has been verified, whatever the file is now.
		keys, err := unchanged(f, before, now, key)()
		if err != nil || !same(f, d.ref.Path) {
			return id, nil
		}
		return id, setKeys(d.st, id, keys)
	})
}

// same reports whether path is still that of f.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// A noEngineError says that no engine has the image, or why it cannot be asked.
type noEngineError struct{ error }

func (e *noEngineError) Unwrap() error { return e.error }

// fromEngine takes the image out of the first engine that has it.
func (d *dockerImport) fromEngine(ctx context.Context) (container.ID, error) {
	daemons, err := image.Daemons()
	if err != nil {
		return 0, &noEngineError{err}
	}
	if len(daemons) == 0 {
		return 0, &noEngineError{&hinted{
			image.ErrNoDaemon, "DOCKER_HOST=unix:///PATH says where one listens; Podman's is started by `podman system service`",
		}}
	}
	var errs []error
	for _, daemon := range daemons {
		defer daemon.Close()
		name, is, err := d.inspect(ctx, daemon)
		if err == nil && !d.platform.Fits(is.Platform()) {
			err = fmt.Errorf("%w: engine %s has it for %s", image.ErrNotFound, daemon.Address, is.Platform())
		}
		if err == nil {
			return d.take(ctx, daemon, name, is)
		}
		if ctx.Err() != nil {
			return 0, err
		}
		errs = append(errs, err)
	}
	return 0, &noEngineError{errors.Join(errs...)}
}

// inspect asks an engine for the image, by its name or by the id that docker images shows, and returns
// what the engine knows it by.
func (d *dockerImport) inspect(ctx context.Context, daemon *image.Daemon) (name string, is *image.Inspected, err error) {
	name = d.ref.Familiar()
	is, err = daemon.Inspect(ctx, name)
	id, latest := strings.CutSuffix(name, ":latest")
	if !errors.Is(err, image.ErrNotFound) || !latest || len(id) < shortID || strings.Trim(id, "0123456789abcdef") != "" {
		return name, is, err
	}
	if byID, idErr := daemon.Inspect(ctx, id); idErr == nil {
		return string(byID.ID), byID, nil
	}
	return name, is, err
}

// shortID is how many digits of an image's id engines show.
const shortID = 12

// take takes the image out of an engine that has it, if it is not here already.
func (d *dockerImport) take(ctx context.Context, daemon *image.Daemon, name string, is *image.Inspected) (_ container.ID, err error) {
	engineKey := "image:engine:" + string(is.ID)
	if id, ok, err := image.KnownConfig(d.st, is.ID); ok || err != nil {
		return id, err
	}
	if id, ok, err := lookup(d.st, engineKey); ok || err != nil {
		return id, err
	}
	body, err := daemon.Save(ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	shown := progress.NewReader(body, d.o.display())
	defer shown.Close()
	// The archive has this one image alone.
	all := image.Ref{Transport: image.DockerArchive, Index: -1}
	im, err := image.ReadArchive(ctx, d.st.CAS(), shown, all, d.openOptions())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	return d.keep(ctx, im, nil, engineKey)
}

// fromRegistry pulls the image, if its name is not known.
func (d *dockerImport) fromRegistry(ctx context.Context) (container.ID, error) {
	key := "image:docker:" + d.ref.Name() + ":" + d.platform.String()
	return cached(ctx, d.st, key, d.o.Refresh, func() (_ container.ID, err error) {
		im, err := pull(ctx, d.ref, d.platform, d.o)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, im.Close()) }()
		return d.keep(ctx, im, nil, key)
	})
}

// maxImageSize reads the value of [image.SizeVariable]: a number of bytes, with K, M, G or T behind
// it of KiB and so on. It returns it as [image.OpenOptions] has it.
func maxImageSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "KMGTIB")
	shift := map[string]int{"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
	unit := strings.ToUpper(s[len(digits):])
	if len(unit) > 1 {
		unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	by, known := shift[unit]
	switch {
	case err != nil, n < 0, !known, n<<by>>by != n:
		return 0, fmt.Errorf("%s=%s: a number of bytes expected, as in 200G", image.SizeVariable, s)
	case n == 0:
		return -1, nil
	}
	return n << by, nil
}
