package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
)

// A source is bytes to be uploaded, which can be read from anywhere, and again.
type source struct {
	digest digest.Digest
	size   int64
	at     io.ReaderAt
}

func bytesSource(b []byte) source {
	return source{digest.FromBytes(b), int64(len(b)), bytes.NewReader(b)}
}

// has reports whether a registry has a blob.
func (s *session) has(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := s.request(ctx, http.MethodHead, s.url("blobs/"+d.String()))
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return false, answerError(s.repo.host, resp)
	}
	if resp.StatusCode >= 500 {
		return false, answerError(s.repo.host, resp)
	}
	return false, nil
}

// request makes a request without a body.
func (s *session) request(ctx context.Context, method string, u *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, requestError(ctx, err)
	}
	return resp, nil
}

// mount asks for a blob of another repository of the same registry, which then need not be
// uploaded. If the registry will not, it begins an upload instead, whose address this
// returns.
func (s *session) mount(ctx context.Context, d digest.Digest, from string) (mounted bool, upload *url.URL, err error) {
	u := s.url("blobs/uploads/")
	u.RawQuery = url.Values{"mount": {d.String()}, "from": {from}}.Encode()
	resp, err := s.request(ctx, http.MethodPost, u)
	if err != nil {
		return false, nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil, nil
	case http.StatusAccepted:
		u, err := location(resp)
		return false, u, err
	}
	return false, nil, answerError(s.repo.host, resp)
}

// location is where an upload goes on, as an answer says.
func location(resp *http.Response) (*url.URL, error) {
	field := resp.Header.Get("Location")
	if field == "" {
		return nil, errors.New("the registry does not say where the upload goes on")
	}
	u, err := resp.Request.URL.Parse(field)
	if err != nil {
		return nil, fmt.Errorf("the registry says that the upload goes on at %q: %w", field, err)
	}
	return u, nil
}

const (
	// maxUploadFailures is how many attempts may fail in a row that did not bring an upload on.
	maxUploadFailures = 6
	// maxRefusals is how often a registry may find that what it got has another digest.
	maxRefusals     = 2
	maxWait         = 15 * time.Second
	maxRetryAfter   = 2 * time.Minute
	enoughProgress  = 64 << 10
	uploadMediaType = "application/octet-stream"
)

// An upload is a blob on its way to a registry (OCI distribution specification, "Pushing
// Blobs"). It is one request, if nothing goes wrong; after a lost connection the registry is
// asked how much it has, and gets the rest. If it does not remember, all is sent again.
type upload struct {
	*session
	src     source
	display progress.Display
	backoff time.Duration
	idle    time.Duration

	to        *url.URL // where it goes on; nil: it has to be begun
	off       int64    // bytes that the registry has
	failures  int      // in a row
	lastOff   int64    // at the last one
	refusals  int
	different bool // the registry has other bytes than these
	sending   bool // the attempt is about the bytes: other requests were made several times
	done      bool
}

// upload sends a blob, unless the registry has it already. At is where an upload has been
// begun, nil: nowhere.
func (c *Client) upload(ctx context.Context, s *session, src source, at *url.URL, show progress.Display) error {
	u := &upload{session: s, src: src, to: at, display: show, backoff: c.backoff, idle: c.idle}
	if u.idle == 0 {
		u.idle = 30 * time.Second
	}
	show.Start(src.size)
	for {
		err := u.attempt(ctx)
		if err != nil {
			err = u.failed(ctx, err)
		} else {
			u.done = true
		}
		if err != nil {
			return fmt.Errorf("upload %s to %s: %w", src.digest, s.repo, err)
		}
		if u.done {
			show.Set(src.size)
			return nil
		}
	}
}

// attempt goes on with the upload to its end, or until something is wrong.
func (u *upload) attempt(ctx context.Context) error {
	if u.to == nil {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	if u.off < u.src.size {
		u.sending = true
		if err := u.send(ctx); err != nil {
			return err
		}
		u.sending = false
	}
	return u.commit(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	u.off = 0
	resp, err := u.request(ctx, http.MethodPost, u.url("blobs/uploads/"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return answerError(u.repo.host, resp)
	}
	u.to, err = location(resp)
	return err
}

// send sends what is missing.
func (u *upload) send(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body := &body{u: u, r: io.NewSectionReader(u.src.at, u.off, u.src.size-u.off), at: u.off}
	body.timer = time.AfterFunc(u.idle, func() {
		cancel(fmt.Errorf("the registry takes no data for %v: %w", u.idle, os.ErrDeadlineExceeded))
	})
	defer body.stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, u.to.String(), body)
	if err != nil {
		return err
	}
	req.ContentLength = u.src.size - u.off
	req.Header.Set("Content-Type", uploadMediaType)
	if u.off > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.off, u.src.size-1))
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return requestError(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusCreated {
		return answerError(u.repo.host, resp)
	}
	u.off = u.src.size
	u.to, err = location(resp)
	return err
}

// body is what a request sends. It tells how far it is, and that it moves. A registry may
// answer before it has all of it, and net/http goes on reading for a moment: until stop.
type body struct {
	u     *upload
	timer *time.Timer

	mu   sync.Mutex
	r    io.Reader
	at   int64
	over bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	b.at += int64(n)
	b.u.display.Set(b.at)
	b.timer.Reset(b.u.idle)
	if err != nil {
		// The answer is waited for, which may take longer.
		b.timer.Stop()
	}
	return n, err
}

// stop has nothing read any more.
func (b *body) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.timer.Stop()
}

// commit ends the upload.
func (u *upload) commit(ctx context.Context) error {
	to := *u.to
	query := to.Query()
	query.Set("digest", u.src.digest.String())
	to.RawQuery = query.Encode()
	resp, err := u.request(ctx, http.MethodPut, &to)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusNoContent, http.StatusOK:
		return nil
	case http.StatusBadRequest:
		u.different = true
	}
	return answerError(u.repo.host, resp)
}

// failed decides what to do after an attempt that ended with err: nil to make another
// one, after a wait, or because all is well.
func (u *upload) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	again := u.again(err)
	u.failures++
	if u.to != nil && !u.different && u.resume(ctx) {
		if u.off-u.lastOff >= enoughProgress {
			u.failures = 1
		}
	} else {
		u.to, u.off = nil, 0
	}
	u.different, u.sending, u.lastOff = false, false, u.off
	// The answer may be lost that said that it is done.
	if there, hasErr := u.has(ctx, u.src.digest); hasErr == nil && there {
		u.done = true
		return nil
	}
	if !again || u.failures >= maxUploadFailures {
		return err
	}
	wait := min(u.backoff<<(u.failures-1), maxWait)
	var answer *AnswerError
	if errors.As(err, &answer) && answer.after <= maxRetryAfter {
		wait = max(wait, answer.after)
	}
	u.display.Retry(fmt.Errorf("upload %s: %w", u.src.digest, err), wait)
	return sleep(ctx, wait)
}

// again reports whether what ended with err may go better next time.
func (u *upload) again(err error) bool {
	switch code := status(err); code {
	case 0:
		return u.sending && (fetch.Transient(err, 0) || errors.Is(err, os.ErrDeadlineExceeded) || brokenWrite(err))
	case http.StatusUnauthorized: // a token whose time was up in the middle of the upload
		return u.sending
	case http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable, http.StatusConflict:
		return u.to != nil
	case http.StatusBadRequest:
		u.refusals++
		return u.to != nil && u.refusals <= maxRefusals
	default:
		return u.sending && fetch.Transient(nil, code)
	}
}

// brokenWrite reports whether a request could not be sent because the peer is gone: net/http
// has no type for it.
func brokenWrite(err error) bool {
	text := err.Error()
	return strings.Contains(text, "connection broken") || strings.Contains(text, "server closed") || strings.Contains(text, "ContentLength=")
}

func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// resume asks how much of the upload the registry has. It returns false where it does not
// say, or so little that all is better sent again.
func (u *upload) resume(ctx context.Context) bool {
	resp, err := u.request(ctx, http.MethodGet, u.to)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return false
	}
	var first, last int64
	field := strings.TrimPrefix(resp.Header.Get("Range"), "bytes=")
	if _, err := fmt.Sscanf(field, "%d-%d", &first, &last); err != nil || first != 0 || last <= 0 || last >= u.src.size {
		return false // 0-0 is said of nothing as well as of one byte
	}
	to, err := location(resp)
	if err != nil {
		return false
	}
	u.to, u.off = to, last+1
	return true
}
