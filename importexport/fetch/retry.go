package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// streamKey is the key of a request's context under which a [Stream] says the path that
// it asks for, since it makes its attempts itself.
type streamKey struct{}

// Retry is a [http.RoundTripper] that makes a request again where the next attempt may
// succeed: after a lost connection, and after an answer that asks for it (429, 5xx and
// their kin, see RFC 6585 and RFC 9110). Requests whose body cannot be sent twice
// are made once.
type Retry struct {
	Base    http.RoundTripper
	Backoff time.Duration // before the second attempt; doubled with each
	// Notify is told before each further attempt; nil: nobody is.
	Notify func(why error, wait time.Duration)
}

// RoundTrip implements [http.RoundTripper]. After the last attempt it returns what that one
// brought: an answer, whatever its status, or the error.
func (r *Retry) RoundTrip(req *http.Request) (*http.Response, error) {
	once := req.Body != nil && req.Body != http.NoBody && req.GetBody == nil
	if path, ok := req.Context().Value(streamKey{}).(string); ok && path == req.URL.Path {
		once = true
	}
	for failures := 1; ; failures++ {
		resp, err := r.Base.RoundTrip(req)
		wait, why := failure(resp, err)
		if why == nil || once || failures >= attempts(err) || wait > maxRetryAfter || req.Context().Err() != nil {
			return resp, err
		}
		if resp != nil {
			// What is left of a short answer is read, so that the connection can be used again.
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
			_ = resp.Body.Close()
		}
		wait = max(min(r.Backoff<<(failures-1), maxBackoff), wait)
		if r.Notify != nil {
			r.Notify(fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), why), wait)
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if req, err = again(req); err != nil {
			return nil, err
		}
	}
}

// failure is why a request should be made again, nil if it should not, and how long the
// server wants to be left alone before.
func failure(resp *http.Response, err error) (wait time.Duration, why error) {
	if err != nil {
		if !transient(err) {
			return 0, nil
		}
		return 0, err
	}
	if !retryStatus(resp.StatusCode) {
		return 0, nil
	}
	return retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		fmt.Errorf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// attempts is how many attempts may be made in all, where the last one ended with err.
func attempts(err error) int {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return maxDialFailures // more likely a wrong name than a weak line
	}
	return maxFailures
}

// again is the request to be made once more.
func again(req *http.Request) (*http.Request, error) {
	next := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		next.Body = body
	}
	return next, nil
}

// sleep waits, unless the context is done before.
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

// Transient reports whether a request that ended with err, or with an answer of that status (0
// for none), may be answered next time.
func Transient(err error, status int) bool {
	return err != nil && transient(err) || retryStatus(status)
}
