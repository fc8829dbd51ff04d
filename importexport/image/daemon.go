package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrNoDaemon is wrapped by the error that says that no engine listens where one was
// looked for.
var ErrNoDaemon = errors.New("no Docker or Podman engine")

// A Daemon is a local engine that speaks Docker's HTTP API: Docker, or Podman's
// service.
type Daemon struct {
	// Address is where it listens: unix:///var/run/docker.sock.
	Address string
	base    string // URL
	client  *http.Client
}

// A DaemonError is what an engine answers to a request that it cannot fulfil.
type DaemonError struct {
	Address string
	Status  int    // as http.StatusNotFound
	Message string // in its words
}

func (e *DaemonError) Error() string {
	return fmt.Sprintf("engine %s: %s", e.Address, e.Message)
}

// Daemons returns the engines that may be there: the one that PLASH_DOCKER_SOCKET,
// DOCKER_HOST or CONTAINER_HOST names, else those whose sockets are at their usual places, Docker's
// before Podman's. None of them has been spoken to.
func Daemons() ([]*Daemon, error) {
	if path := os.Getenv("PLASH_DOCKER_SOCKET"); path != "" {
		return []*Daemon{socketDaemon(path)}, nil
	}
	for _, name := range []string{"DOCKER_HOST", "CONTAINER_HOST"} {
		if host := os.Getenv(name); host != "" {
			d, err := newDaemon(host)
			if err != nil {
				return nil, fmt.Errorf("%s=%s: %w", name, host, err)
			}
			return []*Daemon{d}, nil
		}
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	var found []*Daemon
	for _, path := range []string{"/var/run/docker.sock", run + "/docker.sock", run + "/podman/podman.sock", "/run/podman/podman.sock"} {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeSocket && unix.Access(path, unix.W_OK) == nil {
			found = append(found, socketDaemon(path))
		}
	}
	return found, nil
}

// newDaemon is the engine at an address as DOCKER_HOST has them.
func newDaemon(host string) (*Daemon, error) {
	scheme, rest, ok := strings.Cut(host, "://")
	switch {
	case ok && scheme == "unix" && rest != "":
		return socketDaemon(rest), nil
	case !ok || rest == "" || scheme != "tcp" && scheme != "http" && scheme != "https":
		return nil, errors.New("unix:///PATH or tcp://HOST:PORT expected")
	}
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, DisableCompression: true}
	d := &Daemon{Address: host, client: &http.Client{Transport: transport}}
	if scheme == "tcp" {
		scheme = "http"
		if os.Getenv("DOCKER_TLS_VERIFY") != "" {
			scheme = "https"
		}
	}
	if scheme == "https" {
		var err error
		if transport.TLSClientConfig, err = daemonTLS(); err != nil {
			return nil, err
		}
	}
	d.base = scheme + "://" + strings.TrimRight(rest, "/")
	return d, nil
}

// dialTimeout is how long an engine may take to answer a call.
const dialTimeout = 10 * time.Second

func socketDaemon(path string) *Daemon {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
	}
	return &Daemon{
		Address: "unix://" + path,
		base:    "http://localhost",
		client:  &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}},
	}
}

// daemonTLS reads the certificates in DOCKER_CERT_PATH, or ~/.docker, as docker does.
func daemonTLS() (*tls.Config, error) {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = filepath.Join(os.Getenv("HOME"), ".docker")
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err == nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s/ca.pem: no certificates in it", dir)
		}
	}
	cert, keyErr := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if keyErr == nil {
		conf.Certificates = []tls.Certificate{cert}
	}
	for _, err := range []error{err, keyErr} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return conf, nil
}

// Do makes a request: path begins with a slash and is escaped where it has to be. Answers of
// status 400 and above are a [*DaemonError]; an engine that cannot be reached
// is an error that wraps [ErrNoDaemon]. The caller closes the body.
func (d *Daemon) Do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("engine %s: %w", d.Address, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, d.unreachable(ctx, err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	failed := &DaemonError{Address: d.Address, Status: resp.StatusCode, Message: resp.Status}
	var said struct {
		Message string `json:"message"`
		Cause   string `json:"cause"`
	}
	text, readErr := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if readErr == nil && json.Unmarshal(text, &said) == nil && said.Message != "" {
		failed.Message = said.Message
	}
	return nil, errors.Join(failed, resp.Body.Close())
}

// unreachable says in plain words why there is no answer.
func (d *Daemon) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w at %s: %w", ErrNoDaemon, d.Address, op.Err)
	}
	return fmt.Errorf("engine %s: %w", d.Address, err)
}

// Close gives up idle connections.
func (d *Daemon) Close() { d.client.CloseIdleConnections() }

// inspectTimeout is how long an engine may think about a question.
const inspectTimeout = 30 * time.Second

// Inspect asks for an image by its name (or by its config's digest). The error wraps
// [ErrNotFound] if the engine does not have it.
func (d *Daemon) Inspect(ctx context.Context, name string) (*Inspected, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, inspectTimeout, fmt.Errorf("engine %s: no answer for %v", d.Address, inspectTimeout))
	defer cancel()
	resp, err := d.Do(ctx, http.MethodGet, "/images/"+escapeName(name)+"/json", nil)
	if err != nil {
		return nil, missingImage(err)
	}
	var is Inspected
	err = json.NewDecoder(io.LimitReader(resp.Body, MaxDocument)).Decode(&is)
	if err != nil {
		err = fmt.Errorf("engine %s: what it says of the image: %w", d.Address, err)
	}
	return &is, errors.Join(err, resp.Body.Close())
}

// An Inspected is what an engine says of an image.
type Inspected struct {
	// ID is the digest of its config; that of its manifest or index where docker has
	// containerd's store.
	ID           digest.Digest `json:"Id"`
	OS           string        `json:"Os"`
	Architecture string
	Variant      string
}

// Platform is what the image runs on.
func (is *Inspected) Platform() Platform {
	return Platform{is.OS, is.Architecture, is.Variant}.filled()
}

// Fits reports whether an image for have may be taken where p is wanted; for the zero value any.
func (p Platform) Fits(have Platform) bool {
	return p == Platform{} || p.filled().rank(have.filled()) >= 0
}

// Save returns the image as an archive of docker save.
func (d *Daemon) Save(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := d.Do(ctx, http.MethodGet, "/images/"+escapeName(name)+"/get", nil)
	if err != nil {
		return nil, missingImage(err)
	}
	return resp.Body, nil
}

// escapeName makes a name part of a path, in which its slashes stay what they are.
func escapeName(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

func missingImage(err error) error {
	var failed *DaemonError
	if errors.As(err, &failed) && failed.Status == http.StatusNotFound {
		return fmt.Errorf("engine %s: %w", failed.Address, ErrNotFound)
	}
	return err
}
