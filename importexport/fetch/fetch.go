// Package fetch downloads files over HTTP as streams that survive lost connections:
// what is cut off is resumed, what the server has changed under way is an error, and the
// end is only seen where all that was promised has arrived.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ihucos/plash/importexport/progress"
)

const (
	maxRedirects = 10
	// idleTimeout is how long a peer may be silent: while it is connected to,
	// until its header comes, and between two pieces of the body.
	idleTimeout = 30 * time.Second
	// maxRetryAfter is the longest time a server may tell us to wait.
	maxRetryAfter = 2 * time.Minute
	// maxFailures is how many attempts may fail in a row. An attempt that
	// brought a download on by enoughProgress starts the count anew.
	maxFailures = 6
	// maxDialFailures takes its place where no connection has been made yet.
	maxDialFailures = 3
	enoughProgress  = 64 << 10
	firstBackoff    = 500 * time.Millisecond
	maxBackoff      = 15 * time.Second
)

// ErrChecksum is wrapped by errors about bytes that are not those which were
// promised.
var ErrChecksum = errors.New("checksum mismatch")

// ErrChanged says that the server has other bytes now than at the beginning of
// the download.
var ErrChanged = errors.New("the file changed on the server during the download")

// errIdle ends a request whose peer has fallen silent.
var errIdle = errors.New("no data from the server")

// StatusError is an answer of a server that holds no data.
type StatusError struct {
	URL    string // without a password
	Status int    // as http.StatusNotFound
}

func (e *StatusError) Error() string {
	if text := http.StatusText(e.Status); text != "" {
		return fmt.Sprintf("get %s: %d %s", e.URL, e.Status, text)
	}
	return fmt.Sprintf("get %s: status %d", e.URL, e.Status)
}

// A Client makes requests. Its times are fields so that tests need not wait.
type Client struct {
	HTTP      *http.Client
	userAgent string
	Idle      time.Duration
	Backoff   time.Duration // before the second attempt; doubled with each
}

// New returns a client that tells servers userAgent; "": plash.
func New(userAgent string) *Client {
	if userAgent == "" {
		userAgent = "plash"
	}
	dialer := &net.Dialer{Timeout: idleTimeout, KeepAlive: idleTimeout}
	return &Client{
		userAgent: userAgent,
		Idle:      idleTimeout,
		Backoff:   firstBackoff,
		HTTP: &http.Client{
			CheckRedirect: checkRedirect,
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           dialer.DialContext,
				TLSHandshakeTimeout:   idleTimeout,
				ResponseHeaderTimeout: idleTimeout,
				ForceAttemptHTTP2:     true,
				// The bytes are wanted as they are stored: a length, a range and
				// a checksum are of these.
				DisableCompression: true,
			},
		},
	}
}

// Close gives up the connections that are idle.
func (c *Client) Close() { c.HTTP.CloseIdleConnections() }

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https to %s refused", req.URL.Redacted())
	}
	return nil
}

// strongValidator is what names these very bytes in an If-Range field: a
// strong entity tag, or a modification time well before the answer's own (RFC
// 9110, 8.8.2.2: a younger one may stand for two versions).
func strongValidator(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	if h.Get("ETag") != "" {
		return "" // a weak one: the server does not promise equal bytes
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return ""
	}
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || date.Sub(modified) < time.Minute {
		return ""
	}
	return h.Get("Last-Modified")
}

// transient reports whether a request without an answer may get one next time.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		// A deadline of the connection is not one of ours: those of the
		// caller's context are looked at before.
		var ne net.Error
		return errors.As(err, &ne) && ne.Timeout()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func retryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// RetryAfter is how long a server asks to be left alone, 0 where it does not say.
func RetryAfter(h http.Header) time.Duration { return retryAfter(h.Get("Retry-After"), time.Now()) }

// retryAfter is how long a server asks to be left alone (RFC 9110, 10.2.3), 0
// where it does not say or cannot be understood.
func retryAfter(field string, now time.Time) time.Duration {
	if field == "" {
		return 0
	}
	if secs, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(secs) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// Get returns the whole of a small file, of at most limit bytes.
func (c *Client) Get(ctx context.Context, u *url.URL, limit int64) ([]byte, error) {
	s := c.Open(ctx, u, -1, progress.Quiet{})
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, s.Wrap(fmt.Errorf("more than %d bytes", limit))
	}
	return data, nil
}
