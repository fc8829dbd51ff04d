package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoEngine says that no container engine of this machine could be reached.
var ErrNoEngine = errors.New("no Docker or Podman engine can be reached")

// engineAddrs are where an engine may listen: DOCKER_HOST alone if it is set, else the
// sockets of Docker and of Podman, of the user and of the system.
func engineAddrs() []string {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return []string{host}
	}
	addrs := []string{"unix:///var/run/docker.sock"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		addrs = append(addrs, "unix://"+filepath.Join(dir, "docker.sock"), "unix://"+filepath.Join(dir, "podman/podman.sock"))
	}
	return append(addrs, "unix:///run/podman/podman.sock")
}

// dialEngine connects to the first engine that answers.
func dialEngine(ctx context.Context) (net.Conn, error) {
	var failed []error
	for _, addr := range engineAddrs() {
		u, err := url.Parse(addr)
		if err != nil {
			return nil, fmt.Errorf("DOCKER_HOST: %w", err)
		}
		network, at := "unix", u.Path
		switch u.Scheme {
		case "unix":
		case "tcp", "http":
			network, at = "tcp", u.Host
		default:
			return nil, fmt.Errorf("DOCKER_HOST %s: %w: neither unix:// nor tcp://", addr, errors.ErrUnsupported)
		}
		c, err := new(net.Dialer).DialContext(ctx, network, at)
		if err == nil {
			return c, nil
		}
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoEngine, joined(failed))
}

// joined is several errors in one line.
func joined(errs []error) error {
	all := errs[0]
	for _, err := range errs[1:] {
		all = fmt.Errorf("%w, %w", all, err)
	}
	return all
}

// Load gives an image to the container engine of this machine, which will know it by the
// names of refs. Nothing is stored on the way. The error wraps [ErrNoEngine] if there is
// none.
func Load(ctx context.Context, im *Image, refs ...Ref) (err error) {
	conn, err := dialEngine(ctx)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true, // it is the one connection
	}}
	// The engine may answer before it has read everything, so the writer is ended by the
	// reader's end, and its error is only of interest where it came first.
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := WriteDockerArchive(ctx, w, im, refs...)
		w.CloseWithError(err)
		written <- err
	}()
	err = load(ctx, client, r)
	r.CloseWithError(errEngineDone)
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errEngineDone) {
		return writeErr
	}
	return err
}

var errEngineDone = errors.New("the engine has closed the connection")

// load sends an archive: Docker Engine API, "Import images"; Podman has it too.
func load(ctx context.Context, client *http.Client, archive io.Reader) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/images/load?quiet=1", archive)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("load image into the engine: %w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	body := bufio.NewReader(io.LimitReader(res.Body, maxIndex))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("load image into the engine: %s: %s", res.Status, reason(body))
	}
	return loaded(body)
}

// reason is what an engine says of a request that it refuses.
func reason(body io.Reader) string {
	b, err := io.ReadAll(io.LimitReader(body, 4096))
	if err != nil {
		return err.Error()
	}
	var answer struct{ Message, Cause string }
	if json.Unmarshal(b, &answer) == nil && answer.Message != "" {
		return answer.Message
	}
	return strings.TrimSpace(string(b))
}

// loaded reads the messages about an image that is being loaded: only these tell whether it is.
func loaded(body io.Reader) error {
	dec := json.NewDecoder(body)
	for n := 0; ; n++ {
		var message struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		err := dec.Decode(&message)
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return nil
		case err != nil:
			return fmt.Errorf("load image into the engine: its answer: %w", err)
		case message.Error != "":
			return fmt.Errorf("load image into the engine: %s", message.Error)
		}
	}
}
