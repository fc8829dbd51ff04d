package registry

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registriesconf"
)

const (
	insecureVar = "PLASH_INSECURE_REGISTRIES"
	mirrorsVar  = "PLASH_REGISTRY_MIRRORS"
	// dockerSettings is the configuration of the Docker engine.
	dockerSettings = "/etc/docker/daemon.json"
	// certsDir has certificates by registry, as Docker has them.
	certsDir = "/etc/docker/certs.d"
)

// settings are what the environment says of registries.
type settings struct {
	plain   []string // hosts that may be spoken to without TLS
	mirrors []mirror
	docker  []mirror // of docker.io, those of a Docker engine
	certs   string   // directory of certificates
	// conf returns what registries.conf says, which is read when it is first wanted; nil: nothing.
	conf func() (*registriesconf.Config, error)
	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: as package net does; tests have hosts of their own
}

// A mirror has what another registry has.
type mirror struct {
	of   string // host
	host string
	http bool
	path string // stands before the names of repositories
}

// environment reads the settings. What makes no sense in the variables, and in Docker's configuration, is as good
// as not there: the registries themselves are asked then. An error in registries.conf is one, as it is for Podman.
func environment() settings {
	s := settings{plain: words(os.Getenv(insecureVar)), certs: certsDir, conf: sync.OnceValues(registriesconf.Load)}
	if list := words(os.Getenv(mirrorsVar)); len(list) > 0 {
		s.mirrors = parseMirrors(list)
	} else {
		s.docker = parseMirrors(dockerMirrors(dockerSettings))
	}
	return s
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// dockerMirrors are the mirrors of docker.io that a Docker engine is configured to use.
func dockerMirrors(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var config struct {
		Mirrors []string `json:"registry-mirrors"`
	}
	if json.Unmarshal(b, &config) != nil {
		return nil
	}
	return config.Mirrors
}

func parseMirrors(words []string) []mirror {
	var all []mirror
	for _, word := range words {
		if m, ok := parseMirror(word); ok {
			all = append(all, m)
		}
	}
	return all
}

// parseMirror reads [HOST=]URL.
func parseMirror(word string) (mirror, bool) {
	of, address, given := strings.Cut(word, "=")
	if !given {
		of, address = image.DefaultHost, word
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return mirror{}, false
	}
	return mirror{of: of, host: u.Host, http: u.Scheme == "http", path: strings.Trim(u.Path, "/")}, true
}

// insecure reports whether a host may be spoken to over plain HTTP, whatever is asked of it.
func (s settings) insecure(host string) bool {
	if loopback(host) || s.named(host) {
		return true
	}
	conf, err := s.tables()
	table := conf.Find(host)
	return err == nil && table != nil && table.Insecure
}

// named reports whether the user has named a host as one without a proper certificate.
func (s settings) named(host string) bool { return slices.Contains(s.plain, host) }

// loopback reports whether a host, with a port or without, is this machine.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
