package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/image"
)

var (
	// ErrDenied is wrapped by the error about what a registry does not let us do.
	ErrDenied = errors.New("the registry denies access")
	// ErrUnsupported is wrapped by the error about an image of a kind that plash does not read.
	ErrUnsupported = errors.New("not supported")
)

// maxErrorBody is how much of an answer is read that says what is wrong.
const maxErrorBody = 64 << 10

// An AnswerError is a registry's answer that says no (OCI distribution
// specification, "Error Codes").
type AnswerError struct {
	Host    string
	Status  int    // as http.StatusNotFound
	Code    string // as MANIFEST_UNKNOWN, "" where there is none
	Message string // the registry's own words

	after time.Duration // how long it wants to be left alone
}

func (e *AnswerError) Error() string {
	s := fmt.Sprintf("the registry answers %d %s", e.Status, http.StatusText(e.Status))
	switch {
	case e.Message != "":
		s += ": " + e.Message
	case e.Code != "":
		s += ": " + strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	}
	return s
}

// Hint says what to do where the registry wants to know who asks.
func (e *AnswerError) Hint() string {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "`docker login " + e.Host + "` or `podman login " + e.Host + "` keeps credentials, which plash uses"
	}
	return ""
}

// Unwrap says what kind of error it is.
func (e *AnswerError) Unwrap() error {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusNotFound:
		return image.ErrNotFound
	}
	return nil
}

// answerError is the error that an answer stands for. It reads the answer's body and does
// not close it.
func answerError(host string, resp *http.Response) error {
	e := &AnswerError{Host: host, Status: resp.StatusCode, after: fetch.RetryAfter(resp.Header)}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err == nil && json.Unmarshal(b, &body) == nil && len(body.Errors) > 0 {
		e.Code, e.Message = body.Errors[0].Code, body.Errors[0].Message
	}
	return e
}

// beginError is the error about a registry that no session could be begun with.
func beginError(ctx context.Context, repo repository, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		answer *transport.Error
		cert   *tls.CertificateVerificationError
	)
	if errors.As(err, &cert) { // what plain HTTP then said means nothing
		err = &hinted{cert, certsDir + "/" + repo.host + "/ca.crt, or SSL_CERT_FILE, has its authority; " + insecureVar + "=" + repo.host + " does without"}
	} else if errors.As(err, &answer) {
		e := &AnswerError{Host: repo.host, Status: answer.StatusCode}
		if len(answer.Errors) > 0 {
			e.Code, e.Message = string(answer.Errors[0].Code), answer.Errors[0].Message
		}
		err = e
	}
	var (
		plain *plainError
		dial  *net.OpError
	)
	switch {
	case errors.As(err, &plain):
		err = &hinted{err, plain.Hint()}
	case errors.As(err, &dial) && dial.Op == "dial":
		err = dial // with TLS and without it is the same
	}
	return fmt.Errorf("registry %s: %w", repo.host, err)
}

// hinted is an error that knows a way out.
type hinted struct {
	error
	hint string
}

func (e *hinted) Hint() string  { return e.hint }
func (e *hinted) Unwrap() error { return e.error }

// status is the status of the answer that err is about, 0 where it is about none.
func status(err error) int {
	var (
		answer *AnswerError
		stream *fetch.StatusError
	)
	switch {
	case errors.As(err, &answer):
		return answer.Status
	case errors.As(err, &stream):
		return stream.Status
	}
	return 0
}
