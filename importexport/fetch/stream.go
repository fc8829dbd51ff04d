package fetch

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
	"strings"
	"time"

	"github.com/ihucos/plash/importexport/progress"
)

// A Stream is the body of one URL as a reader. It survives lost connections: the
// rest is asked for with a range where the server has given a strong validator
// (RFC 9110, 13.1.5), or everything again, of which the part that is already
// known is compared and dropped. It ends with io.EOF only after as many bytes
// as were promised.
type Stream struct {
	c       *Client
	ctx     context.Context
	url     *url.URL
	display progress.Display

	size      int64  // of the whole, -1: not known
	fixed     bool   // the URL stands for the same bytes for ever
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

// Open begins the download of u. size is how many bytes it must have, -1: any.
// The first request is made by the first Read.
func (c *Client) Open(ctx context.Context, u *url.URL, size int64, p progress.Display) *Stream {
	return &Stream{c: c, ctx: ctx, url: u, size: size, display: p, sum: sha256.New()}
}

// OpenFixed is Open for a URL that stands for the same bytes for ever, as one made of their
// digest: what is cut off goes on by a range, whatever validators the server gives. The
// caller compares [Stream.SHA256] at the end.
func (c *Client) OpenFixed(ctx context.Context, u *url.URL, size int64, p progress.Display) *Stream {
	s := c.Open(ctx, u, size, p)
	s.fixed = true
	return s
}

// SHA256 is the SHA-256 of what has been read, as hexadecimal digits.
func (s *Stream) SHA256() string { return hex.EncodeToString(s.sum.Sum(nil)) }

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
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
			s.display.Set(s.off)
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
func (s *Stream) check(err error) {
	switch {
	case s.size >= 0 && s.off > s.size:
		s.err = s.Wrap(fmt.Errorf("more than the promised %d bytes", s.size))
	case err == nil:
		return
	case errors.Is(err, io.EOF) && (s.size < 0 || s.off == s.size):
		s.err = io.EOF
		s.display.Complete()
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
func (s *Stream) readBody(p []byte) (int, error) {
	timer := time.AfterFunc(s.c.Idle, func() {
		s.cancel(fmt.Errorf("%w for %v", errIdle, s.c.Idle))
	})
	n, err := s.body.Read(p)
	timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.reason(err)
	}
	return n, err
}

// drop ends the request under way, if there is one.
func (s *Stream) drop() {
	if s.body == nil {
		return
	}
	s.cancel(nil)
	_ = s.body.Close() // nothing more is wanted from it
	s.body = nil
}

// Close ends the download. It is not safe while a Read is under way.
func (s *Stream) Close() { s.drop() }

// Err is what ended the stream: io.EOF, or why it broke off; nil while it goes on.
func (s *Stream) Err() error { return s.err }

// IsPage reports whether the server calls what it sends HTML.
func (s *Stream) IsPage() bool { return s.page }

// URL is where the stream comes from.
func (s *Stream) URL() *url.URL { return s.url }

// Wrap says of err that it is about this download.
func (s *Stream) Wrap(err error) error {
	return fmt.Errorf("get %s: %w", s.url.Redacted(), err)
}

// reason is why a request failed, without what net/http puts around it.
func (s *Stream) reason(err error) error {
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
func (s *Stream) pause(why error, atLeast time.Duration) error {
	if s.ctx.Err() != nil {
		return s.Wrap(context.Cause(s.ctx))
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
		return fmt.Errorf("%w (%d attempts)", s.Wrap(why), s.failures)
	}
	if atLeast > maxRetryAfter {
		return s.Wrap(fmt.Errorf("%w: the server asks to come back in %v", why, atLeast))
	}
	wait := max(min(s.c.Backoff<<(s.failures-1), maxBackoff), atLeast)
	s.display.Retry(s.Wrap(why), wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.Wrap(context.Cause(s.ctx))
	case <-timer.C:
		return nil
	}
}

// connect makes requests until one has brought a body that continues at s.off.
func (s *Stream) connect() error {
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
func (s *Stream) request() (again bool, wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(s.ctx, streamKey{}, s.url.Path))
	s.reqCtx, s.cancel = ctx, cancel
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		cancel(nil)
		return false, 0, s.Wrap(err)
	}
	req.Header.Set("User-Agent", s.c.userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	ranged := s.off > 0 && (s.fixed || s.validator != "")
	if ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.off))
	}
	if ranged && !s.fixed {
		req.Header.Set("If-Range", s.validator)
	}
	resp, err := s.c.HTTP.Do(req)
	if err != nil {
		err = s.reason(err)
		cancel(nil)
		if !transient(err) {
			return false, 0, s.Wrap(err)
		}
		return true, 0, err
	}
	s.body = resp.Body
	switch {
	case resp.StatusCode == http.StatusOK:
		return s.whole(resp)
	case resp.StatusCode == http.StatusPartialContent && ranged:
		return false, 0, s.rest(resp)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && s.off > 0:
		return false, 0, s.Wrap(s.beyond(resp.Header.Get("Content-Range")))
	case retryStatus(resp.StatusCode):
		return true, retryAfter(resp.Header.Get("Retry-After"), time.Now()),
			fmt.Errorf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	default:
		return false, 0, &StatusError{URL: s.url.Redacted(), Status: resp.StatusCode}
	}
}

// beyond is the error about a server that has nothing from s.off on.
func (s *Stream) beyond(contentRange string) error {
	var total int64
	if _, err := fmt.Sscanf(contentRange, "bytes */%d", &total); err == nil && total == s.off {
		return fmt.Errorf("the server has %d bytes, not the expected %d", total, s.size)
	}
	return ErrChanged
}

// whole takes an answer that holds the file from its beginning.
func (s *Stream) whole(resp *http.Response) (again bool, wait time.Duration, err error) {
	length := resp.ContentLength // -1: not told
	if length >= 0 && s.size >= 0 && length != s.size {
		if s.started {
			return false, 0, s.Wrap(ErrChanged)
		}
		return false, 0, s.Wrap(fmt.Errorf("the server has %d bytes, not the expected %d", length, s.size))
	}
	if s.size < 0 {
		s.size = length
	}
	if !s.started {
		s.started = true
		s.display.Start(s.size)
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
func (s *Stream) skip() (again bool, wait time.Duration, err error) {
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	for left := s.off; left > 0; {
		n, err := s.readBody(buf[:min(left, int64(len(buf)))])
		sum.Write(buf[:n])
		left -= int64(n)
		if err != nil && left > 0 {
			if errors.Is(err, io.EOF) {
				return false, 0, s.Wrap(ErrChanged)
			}
			return true, 0, fmt.Errorf("cut off after %d bytes: %w", s.off-left, err)
		}
	}
	if !bytes.Equal(sum.Sum(nil), s.sum.Sum(nil)) {
		return false, 0, s.Wrap(ErrChanged)
	}
	return false, 0, nil
}

// rest takes an answer that holds the file from s.off on.
func (s *Stream) rest(resp *http.Response) error {
	var first, last, total int64
	field := resp.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(field, "bytes %d-%d/%d", &first, &last, &total); err != nil {
		total = -1
		if _, err := fmt.Sscanf(field, "bytes %d-%d/*", &first, &last); err != nil {
			return s.Wrap(fmt.Errorf("answer with the range %q", field))
		}
	}
	if first != s.off || last < first {
		return s.Wrap(fmt.Errorf("answer with the range %q to a request from %d on", field, s.off))
	}
	v := strongValidator(resp.Header)
	changed := !s.fixed && v != "" && v != s.validator && strings.HasPrefix(v, `"`) == strings.HasPrefix(s.validator, `"`)
	if changed || (total >= 0 && s.size >= 0 && total != s.size) {
		return s.Wrap(ErrChanged)
	}
	if s.size < 0 {
		s.size = total
	}
	return nil
}
