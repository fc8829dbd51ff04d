// Package registry speaks with registries of images, by the OCI distribution
// specification (the Docker Registry HTTP API V2). It knows images, see package image,
// and no containers.
//
// Invariants:
//   - What is asked for by digest is verified against it while it arrives, and so is what a
//     registry says the digest of its answer is. Nothing else is believed.
//   - Passwords and tokens go to the registry they are for, or to the token server that it
//     names, and over plain HTTP only to this machine and to what the user, or registries.conf, says is insecure.
//   - A download that is cut off goes on where it was; an upload too.
//
// # Configuration
//
//   - Credentials are those of docker and podman: ~/.docker/config.json or that in $DOCKER_CONFIG,
//     with its credential helpers; else $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json,
//     $XDG_CONFIG_HOME/containers/auth.json.
//   - Certificates are the system's (and SSL_CERT_FILE), and for a host those in
//     /etc/docker/certs.d/HOST, see [Client].
//   - PLASH_INSECURE_REGISTRIES=HOST[:PORT],… names registries that are spoken to over plain HTTP, or
//     with certificates that no one vouches for. The loopback interface needs none.
//   - PLASH_REGISTRY_MIRRORS=[HOST=]URL,… names mirrors, of docker.io where HOST is not given.
//   - registries.conf has mirrors, other locations, and registries that are insecure or blocked, see
//     package registriesconf. Its mirrors are not asked where the variable has some for the host.
//   - Without the variable and a table there, docker.io has the registry-mirrors of /etc/docker/daemon.json.
package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/progress"
)

// firstBackoff is how long is waited before the second attempt at a request.
const firstBackoff = 500 * time.Millisecond

// Options are how to speak with registries. The zero value is fine.
type Options struct {
	// Progress is told about downloads and uploads; nil: nobody is.
	Progress progress.Display
	// UserAgent is what registries are told; "": plash.
	UserAgent string
	// Warn is told what went wrong and was got around: a mirror that does not answer. nil: nobody is.
	Warn func(error)
}

// A Client speaks with any number of registries, and remembers what it has agreed on with
// them. It may be used by several goroutines at once, but for what Progress shows.
//
// For a host, the files *.crt in /etc/docker/certs.d/HOST[:PORT] are certificates of
// authorities, and *.cert with *.key ones of the client.
type Client struct {
	o        Options
	settings settings
	backoff  time.Duration // tests wait less
	idle     time.Duration // how long a peer may be silent; 0: as package fetch has it

	mu       sync.Mutex
	bases    map[baseKey]*fetch.Retry
	sessions map[string]*session // by repository and what is to be done with it
}

// New returns a client, configured by the environment.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "plash"
	}
	if o.Progress == nil {
		o.Progress = progress.Quiet{}
	}
	o.Progress = progress.Serial(o.Progress)
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return &Client{
		o: o, settings: environment(), backoff: firstBackoff,
		bases: map[baseKey]*fetch.Retry{}, sessions: map[string]*session{},
	}
}

// Close gives up the connections that are idle.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bases {
		if t, ok := b.Base.(*guard); ok {
			t.base.CloseIdleConnections()
		}
	}
}

// baseKey is a registry, and whether it may be insecure although nothing says so of the whole registry.
type baseKey struct {
	host     string
	insecure bool
}

// session is what was agreed on with a registry about one repository.
type session struct {
	ready  chan struct{} // closed when the rest is set
	err    error
	repo   endpoint
	scheme string
	http   *http.Client
	fetch  *fetch.Client
}

// What may be asked for in a session.
const (
	toPull = transport.PullScope
	toPush = transport.PushScope
)

// open returns the session for a repository, and begins it where there is none: it finds
// out how the registry is spoken to, and gets a token where it wants one.
func (c *Client) open(ctx context.Context, repo endpoint, action string) (*session, error) {
	return c.session(ctx, repo, "repository:"+repo.path+":"+action)
}

// openFrom is open for pushing to a repository what other repositories of its registry have.
func (c *Client) openFrom(ctx context.Context, repo endpoint, others []string) (*session, error) {
	scopes := []string{"repository:" + repo.path + ":" + toPush}
	for _, path := range others {
		scopes = append(scopes, "repository:"+path+":"+toPull)
	}
	return c.session(ctx, repo, scopes...)
}

func (c *Client) session(ctx context.Context, repo endpoint, scopes ...string) (*session, error) {
	if repo.blocked != nil {
		return nil, repo.blocked
	}
	key := fmt.Sprintf("%s %v %s", repo.host, repo.insecure, strings.Join(scopes, " "))
	c.mu.Lock()
	s := c.sessions[key]
	mine := s == nil
	if mine {
		s = &session{ready: make(chan struct{}), repo: repo}
		c.sessions[key] = s
	}
	c.mu.Unlock()
	if mine {
		s.err = c.begin(ctx, s, scopes)
		if s.err != nil { // the next one may try again
			c.mu.Lock()
			delete(c.sessions, key)
			c.mu.Unlock()
		}
		close(s.ready)
	}
	select {
	case <-s.ready:
		return s, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Client) begin(ctx context.Context, s *session, scopes []string) error {
	host, err := c.settings.registry(s.repo)
	if err != nil {
		return err
	}
	base, err := c.base(s.repo)
	if err != nil {
		return fmt.Errorf("registry %s: %w", s.repo.host, err)
	}
	auth := c.credentials(ctx, host.Repo(s.repo.path))
	authorised, err := transport.NewWithContext(ctx, host, auth, base, scopes)
	if err != nil {
		return beginError(ctx, s.repo.repository, err)
	}
	s.fetch = fetch.New(c.o.UserAgent)
	s.fetch.Backoff = c.backoff
	if c.idle > 0 {
		s.fetch.Idle = c.idle
	}
	s.fetch.HTTP.Transport = renewed{authorised}
	s.http = s.fetch.HTTP
	s.scheme = base.Base.(*guard).scheme()
	return nil
}

// url is the address of something in the session's repository.
func (s *session) url(rest string) *url.URL {
	return &url.URL{Scheme: s.scheme, Host: s.repo.apiHost(), Path: "/v2/" + s.repo.path + "/" + rest}
}

// base returns the transport for a registry, without authorisation.
func (c *Client) base(e endpoint) (*fetch.Retry, error) {
	key := baseKey{e.host, e.insecure}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.bases[key]; b != nil {
		return b, nil
	}
	g, err := newGuard(e, c.settings, c.o.UserAgent)
	if err != nil {
		return nil, err
	}
	b := &fetch.Retry{Base: g, Backoff: c.backoff, Notify: c.o.Progress.Retry}
	c.bases[key] = b
	return b, nil
}

// credentials finds what the user has for a repository. If that cannot be found out, as where a
// credential helper is not installed, the registry is spoken to without, as Docker does.
func (c *Client) credentials(ctx context.Context, repo name.Repository) authn.Authenticator {
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		c.o.Warn(fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err))
		return authn.Anonymous
	}
	return auth
}
