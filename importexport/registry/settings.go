package registry

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/ihucos/plash/importexport/image"
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
	certs   string // directory of certificates
}

// A mirror has what another registry has.
type mirror struct {
	of   string // host
	host string
	http bool
	path string // stands before the names of repositories
}

// environment reads the settings. What makes no sense in them is as good as not there: the
// registries themselves are asked then.
func environment() settings {
	s := settings{plain: words(os.Getenv(insecureVar)), certs: certsDir}
	list := words(os.Getenv(mirrorsVar))
	if len(list) == 0 {
		list = dockerMirrors(dockerSettings)
	}
	for _, word := range list {
		if m, ok := parseMirror(word); ok {
			s.mirrors = append(s.mirrors, m)
		}
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

// insecure reports whether a host may be spoken to over plain HTTP.
func (s settings) insecure(host string) bool { return loopback(host) || s.named(host) }

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

// registry is the registry at host. That plain HTTP may be tried does not mean that it is:
// TLS is tried before.
func (s settings) registry(host string) (name.Registry, error) {
	var o []name.Option
	if s.insecure(host) {
		o = append(o, name.Insecure)
	}
	r, err := name.NewRegistry(host, o...)
	if err != nil {
		return name.Registry{}, fmt.Errorf("registry %s: %w", host, err)
	}
	return r, nil
}

// sources are the repositories that have what repo has, the preferred ones first, repo itself last.
func (s settings) sources(repo repository) []repository {
	var all []repository
	for _, m := range s.mirrors {
		if m.of == repo.host {
			all = append(all, repository{m.host, strings.TrimPrefix(m.path+"/"+repo.path, "/")})
		}
	}
	return append(all, repo)
}
