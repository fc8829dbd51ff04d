package importexport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
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

// errChanged says that the server has other bytes now than at the beginning of
// the download.
var errChanged = errors.New("the file changed on the server during the download")

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

// client makes requests. Its times are fields so that tests need not wait.
type client struct {
	http      *http.Client
	userAgent string
	idle      time.Duration
	backoff   time.Duration // before the second attempt; doubled with each
}

func newClient(userAgent string) *client {
	if userAgent == "" {
		userAgent = "plash"
	}
	dialer := &net.Dialer{Timeout: idleTimeout, KeepAlive: idleTimeout}
	return &client{
		userAgent: userAgent,
		idle:      idleTimeout,
		backoff:   firstBackoff,
		http: &http.Client{
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

func (c *client) close() { c.http.CloseIdleConnections() }

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https to %s refused", req.URL.Redacted())
	}
	return nil
}

// stream is the body of one URL as a reader. It survives lost connections: the
// rest is asked for with a range where the server has given a strong validator
// (RFC 9110, 13.1.5), or everything again, of which the part that is already
// known is compared and dropped. It ends with io.EOF only after as many bytes
// as were promised.
type stream struct {
	c        *client
	ctx      context.Context
	url      *url.URL
	progress Progress

	size      int64  // of the whole, -1: not known
	validator string // for If-Range, "": none that is strong
	sum       hash.Hash
	off       int64 // bytes handed out, and in sum

	body   io.ReadCloser
	reqCtx context.Context // of the request behind body
	cancel context.CancelCauseFunc

	failures   int   // in a row
	failureOff int64 // off at the last one
	started    bool
	page       bool  // the server calls it HTML
	err        error // permanent
}

// open begins the download of u. size is how many bytes it must have, -1: any.
// The first request is made by the first Read.
func (c *client) open(ctx context.Context, u *url.URL, size int64, p Progress) *stream {
	return &stream{c: c, ctx: ctx, url: u, size: size, progress: p, sum: sha256.New()}
}

// digest is the SHA-256 of what has been read, as hexadecimal digits.
func (s *stream) digest() string { return hex.EncodeToString(s.sum.Sum(nil)) }

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.body == nil {
			if err := s.connect(); err != nil {
				s.err = err
				return 0, err
			}
		}
		n, err := s.readBody(p)
		if n > 0 {
			s.sum.Write(p[:n])
			s.off += int64(n)
			s.progress.Set(s.off)
		}
		s.check(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, nil
}

// check sets s.err if the download is over, for better or worse, and makes
// ready for another attempt if it was cut off.
func (s *stream) check(err error) {
	switch {
	case s.size >= 0 && s.off > s.size:
		s.err = s.wrap(fmt.Errorf("more than the promised %d bytes", s.size))
	case err == nil:
		return
	case errors.Is(err, io.EOF) && (s.size < 0 || s.off == s.size):
		s.err = io.EOF
		s.progress.Complete()
	default:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		s.err = s.pause(fmt.Errorf("cut off after %d bytes: %w", s.off, err), 0)
	}
	s.drop()
}

// readBody reads from the connection and gives up on one that is silent. The
// time our own side takes between two reads does not count.
func (s *stream) readBody(p []byte) (int, error) {
	timer := time.AfterFunc(s.c.idle, func() {
		s.cancel(fmt.Errorf("%w for %v", errIdle, s.c.idle))
	})
	n, err := s.body.Read(p)
	timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.reason(err)
	}
	return n, err
}

// drop ends the request under way, if there is one.
func (s *stream) drop() {
	if s.body == nil {
		return
	}
	s.cancel(nil)
	_ = s.body.Close() // nothing more is wanted from it
	s.body = nil
}

// Close ends the download. It is not safe while a Read is under way.
func (s *stream) Close() { s.drop() }

// wrap says of err that it is about this download.
func (s *stream) wrap(err error) error {
	return fmt.Errorf("get %s: %w", s.url.Redacted(), err)
}

// reason is why a request failed, without what net/http puts around it.
func (s *stream) reason(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.reqCtx.Err() != nil {
		return context.Cause(s.reqCtx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// pause counts a failure and waits before the next attempt. It returns an
// error if there shall be none.
func (s *stream) pause(why error, atLeast time.Duration) error {
	if s.ctx.Err() != nil {
		return s.wrap(context.Cause(s.ctx))
	}
	if s.off-s.failureOff >= enoughProgress {
		s.failures = 0
	}
	s.failures++
	s.failureOff = s.off
	limit := maxFailures
	var dial *net.OpError
	if !s.started && errors.As(why, &dial) && dial.Op == "dial" {
		limit = maxDialFailures // more likely a wrong name than a weak line
	}
	if s.failures >= limit {
		return fmt.Errorf("%w (%d attempts)", s.wrap(why), s.failures)
	}
	if atLeast > maxRetryAfter {
		return s.wrap(fmt.Errorf("%w: the server asks to come back in %v", why, atLeast))
	}
	wait := max(min(s.c.backoff<<(s.failures-1), maxBackoff), atLeast)
	s.progress.Retry(s.wrap(why), wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.wrap(context.Cause(s.ctx))
	case <-timer.C:
		return nil
	}
}

// connect makes requests until one has brought a body that continues at s.off.
func (s *stream) connect() error {
	for {
		again, wait, err := s.request()
		if err == nil {
			return nil
		}
		s.drop()
		if !again {
			return err
		}
		if err := s.pause(err, wait); err != nil {
			return err
		}
	}
}

// request makes one request. again says that an error may be gone next time,
// wait how long the server wants to be left alone; such an error does not say
// yet what it is about, others do.
func (s *stream) request() (again bool, wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.reqCtx, s.cancel = ctx, cancel
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		cancel(nil)
		return false, 0, s.wrap(err)
	}
	req.Header.Set("User-Agent", s.c.userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if s.off > 0 && s.validator != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.off))
		req.Header.Set("If-Range", s.validator)
	}
	resp, err := s.c.http.Do(req)
	if err != nil {
		err = s.reason(err)
		cancel(nil)
		if !transient(err) {
			return false, 0, s.wrap(err)
		}
		return true, 0, err
	}
	s.body = resp.Body
	switch {
	case resp.StatusCode == http.StatusOK:
		return s.whole(resp)
	case resp.StatusCode == http.StatusPartialContent && s.off > 0 && s.validator != "":
		return false, 0, s.rest(resp)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && s.off > 0:
		return false, 0, s.wrap(s.beyond(resp.Header.Get("Content-Range")))
	case retryStatus(resp.StatusCode):
		return true, retryAfter(resp.Header.Get("Retry-After"), time.Now()),
			fmt.Errorf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	default:
		return false, 0, &StatusError{URL: s.url.Redacted(), Status: resp.StatusCode}
	}
}

// beyond is the error about a server that has nothing from s.off on.
func (s *stream) beyond(contentRange string) error {
	var total int64
	if _, err := fmt.Sscanf(contentRange, "bytes */%d", &total); err == nil && total == s.off {
		return fmt.Errorf("the server has %d bytes, not the expected %d", total, s.size)
	}
	return errChanged
}

// whole takes an answer that holds the file from its beginning.
func (s *stream) whole(resp *http.Response) (again bool, wait time.Duration, err error) {
	length := resp.ContentLength // -1: not told
	if length >= 0 && s.size >= 0 && length != s.size {
		if s.started {
			return false, 0, s.wrap(errChanged)
		}
		return false, 0, s.wrap(fmt.Errorf("the server has %d bytes, not the expected %d", length, s.size))
	}
	if s.size < 0 {
		s.size = length
	}
	if !s.started {
		s.started = true
		s.progress.Start(s.size)
	}
	s.validator = strongValidator(resp.Header)
	s.page = strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
	if s.off == 0 {
		return false, 0, nil
	}
	return s.skip()
}

// skip reads the part that is already known from a body that begins at 0, and
// makes sure that it is the same.
func (s *stream) skip() (again bool, wait time.Duration, err error) {
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	for left := s.off; left > 0; {
		n, err := s.readBody(buf[:min(left, int64(len(buf)))])
		sum.Write(buf[:n])
		left -= int64(n)
		if err != nil && left > 0 {
			if errors.Is(err, io.EOF) {
				return false, 0, s.wrap(errChanged)
			}
			return true, 0, fmt.Errorf("cut off after %d bytes: %w", s.off-left, err)
		}
	}
	if !bytes.Equal(sum.Sum(nil), s.sum.Sum(nil)) {
		return false, 0, s.wrap(errChanged)
	}
	return false, 0, nil
}

// rest takes an answer that holds the file from s.off on.
func (s *stream) rest(resp *http.Response) error {
	var first, last, total int64
	field := resp.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(field, "bytes %d-%d/%d", &first, &last, &total); err != nil {
		total = -1
		if _, err := fmt.Sscanf(field, "bytes %d-%d/*", &first, &last); err != nil {
			return s.wrap(fmt.Errorf("answer with the range %q", field))
		}
	}
	if first != s.off || last < first {
		return s.wrap(fmt.Errorf("answer with the range %q to a request from %d on", field, s.off))
	}
	v := strongValidator(resp.Header)
	changed := v != "" && v != s.validator && strings.HasPrefix(v, `"`) == strings.HasPrefix(s.validator, `"`)
	if changed || (total >= 0 && s.size >= 0 && total != s.size) {
		return s.wrap(errChanged)
	}
	if s.size < 0 {
		s.size = total
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

// get returns the whole of a small file, of at most limit bytes.
func (c *client) get(ctx context.Context, u *url.URL, limit int64) ([]byte, error) {
	s := c.open(ctx, u, -1, quiet{})
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, s.wrap(fmt.Errorf("more than %d bytes", limit))
	}
	return data, nil
}
