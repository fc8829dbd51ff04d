package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ihucos/plash/importexport/progress"
)

// Load gives an image to the first of the engines of this machine that can be reached ([Daemons]).
// It will know the image by the names of refs. Nothing is stored on the way. The
// error wraps [ErrNoDaemon] if there is none. The meter is as that of [WriteDockerArchive].
func Load(ctx context.Context, im *Image, m *progress.Meter, refs ...Ref) error {
	daemons, err := Daemons()
	if err != nil {
		return err
	}
	err = ErrNoDaemon
	for _, d := range daemons {
		err = d.Load(ctx, im, m, refs...)
		d.Close()
		if !errors.Is(err, ErrNoDaemon) {
			return err
		}
	}
	return err
}

// Load gives an image to the engine. The meter counts what it has taken, which it may have to unpack
// still.
func (d *Daemon) Load(ctx context.Context, im *Image, m *progress.Meter, refs ...Ref) error {
	// The engine may answer before it has read everything, so the writer is ended by the
	// reader's end, and its error is only of interest where it came first.
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := WriteDockerArchive(ctx, w, im, m, refs...)
		w.CloseWithError(err)
		written <- err
	}()
	err := d.load(ctx, r)
	r.CloseWithError(errEngineDone)
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errEngineDone) && !errors.Is(writeErr, io.ErrClosedPipe) {
		return writeErr
	}
	return err
}

var errEngineDone = errors.New("the engine has closed the connection")

// load sends an archive: Docker Engine API, "Import images"; Podman has it too. Only the messages
// that come back tell whether the engine has the image.
func (d *Daemon) load(ctx context.Context, archive io.Reader) (err error) {
	resp, err := d.Do(ctx, http.MethodPost, "/images/load?quiet=1", archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	dec := json.NewDecoder(io.LimitReader(resp.Body, MaxDocument))
	for n := 0; ; n++ {
		var message struct {
			Error string `json:"error"`
		}
		err := dec.Decode(&message)
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return nil
		case err != nil:
			return fmt.Errorf("engine %s: what it says of the image: %w", d.Address, err)
		case message.Error != "":
			return fmt.Errorf("engine %s: load image: %s", d.Address, message.Error)
		}
	}
}
