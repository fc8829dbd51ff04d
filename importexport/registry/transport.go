package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 30 * time.Second
	// headerTimeout is how long a registry may take to answer. It hashes an upload's
	// bytes when that is complete.
	headerTimeout = 2 * time.Minute
	// maxConns is how many connections to one registry are open at once.
	maxConns = 16
)

// A guard is the transport for one registry, and for where that sends us: it speaks plain
// HTTP only where that may be.
type guard struct {
	host      string // of the registry
	insecure  bool   // it may be spoken to without TLS
	settings  settings
	userAgent string
	base      *http.Transport
	plain     atomic.Bool // the registry has answered over plain HTTP
}

func newGuard(e endpoint, s settings, userAgent string) (*guard, error) {
	config, err := tlsConfig(filepath.Join(s.certs, e.host))
	if err != nil {
		return nil, err
	}
	dial := s.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext
	}
	config.InsecureSkipVerify = e.insecure || s.named(e.host)
	return &guard{host: e.apiHost(), insecure: e.insecure, settings: s, userAgent: userAgent, base: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		MaxConnsPerHost:       maxConns,
		MaxIdleConnsPerHost:   maxConns,
		IdleConnTimeout:       time.Minute,
		// Several streams over one connection share its window, which is small, and its loss.
		ForceAttemptHTTP2: false,
		// Digests are of the bytes as they are stored.
		DisableCompression: true,
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     64 << 10,
	}}, nil
}

// RoundTrip implements [http.RoundTripper].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	if req.URL.Scheme == "http" && !(g.insecure && host == g.host) && !g.settings.insecure(host) {
		return nil, &plainError{host}
	}
	req.Header.Set("User-Agent", g.userAgent)
	resp, err := g.base.RoundTrip(req)
	if err == nil && req.URL.Scheme == "http" && host == g.host {
		g.plain.Store(true)
	}
	return resp, err
}

// scheme is how the registry was found to be spoken to.
func (g *guard) scheme() string {
	if g.plain.Load() {
		return "http"
	}
	return "https"
}

// A plainError says that a host is not spoken to without TLS.
type plainError struct{ host string }

func (e *plainError) Error() string {
	return "plain http to " + e.host + " refused"
}

// Hint says how to have it all the same.
func (e *plainError) Hint() string {
	return insecureVar + "=" + e.host + " speaks with it without TLS or with a certificate that no one vouches for"
}

// tlsConfig is how to speak TLS with a host, with the certificates that are kept in dir
// for it: *.crt of authorities, besides those of the system, and *.cert with *.key of our own.
func tlsConfig(dir string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return config, nil
	}
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch base, ext := strings.TrimSuffix(file, filepath.Ext(file)), filepath.Ext(file); ext {
		case ".crt":
			if config.RootCAs == nil {
				if config.RootCAs, err = x509.SystemCertPool(); err != nil {
					return nil, fmt.Errorf("certificates of the system: %w", err)
				}
			}
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("certificates: %w", err)
			}
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("certificates: %s: no certificate in it", file)
			}
		case ".cert":
			own, err := tls.LoadX509KeyPair(file, base+".key")
			if err != nil {
				return nil, fmt.Errorf("certificates: %w", err)
			}
			config.Certificates = append(config.Certificates, own)
		}
	}
	return config, nil
}

// renewed makes a request again that was refused with the token that was just fetched for it: while
// other requests are under way, its time may be up.
type renewed struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (r renewed) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || req.Body != nil && req.GetBody == nil {
		return resp, err
	}
	next := req.Clone(req.Context())
	if req.GetBody != nil {
		if next.Body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	_ = resp.Body.Close()
	return r.RoundTripper.RoundTrip(next)
}
