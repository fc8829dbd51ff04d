package importexport

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/ihucos/plash/container"
)

// ImportURL makes a container of the tar at an HTTP or HTTPS URL. It is asked
// for once: then the URL stands for that container until it is removed or
// o.Refresh is set. With o.SHA256 only a container made of these very bytes
// is returned.
func ImportURL(ctx context.Context, st *container.Store, rawURL string, o Options) (container.ID, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	want := strings.TrimPrefix(strings.ToLower(o.SHA256), "sha256:")
	key := "image:" + urlKey(u)
	lookup := key
	if want != "" {
		if !validSHA256(want) {
			return 0, fmt.Errorf("import %s: %q is no SHA-256: 64 hexadecimal digits expected", u.Redacted(), o.SHA256)
		}
		lookup = downloadKey(want)
	}
	return cached(ctx, st, lookup, o.Refresh, func() (container.ID, error) {
		d := download{url: u, size: -1, sha256: want}
		return d.keep(ctx, st, o, u.Redacted(), key)
	})
}

// keep downloads d and makes a container of it that all keys stand for.
func (d *download) keep(ctx context.Context, st *container.Store, o Options, from string, keys ...string) (_ container.ID, err error) {
	c, done := o.newClient()
	defer done()
	staged, sum, err := d.ingest(ctx, st, c, o.display())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	return keep(ctx, st, staged, from, append(keys, downloadKey(sum))...)
}

// parseURL takes an absolute HTTP URL, without its fragment.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// What url.Parse says repeats the URL, with a password that may be in it.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("not a URL: %w", err)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s: neither http nor https", u.Redacted())
	}
	if u.Host == "" {
		return nil, fmt.Errorf("%s: no host", u.Redacted())
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// urlKey is a URL as part of a cache key: a password counts, but is not
// readable.
func urlKey(u *url.URL) string {
	key := u.Redacted()
	if u.User != nil {
		sum := sha256.Sum256([]byte(u.User.String()))
		key += "#" + hex.EncodeToString(sum[:])
	}
	return key
}

func downloadKey(sum string) string { return "download:sha256:" + sum }

// validSHA256 reports whether s is a SHA-256 in lower-case hexadecimal digits.
func validSHA256(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}
