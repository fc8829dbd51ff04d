package registry

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/ihucos/plash/importexport/registry/registriesconf"
)

// An endpoint is a repository, and how it may be spoken with.
type endpoint struct {
	repository
	insecure bool  // without TLS, or with a certificate that no one vouches for
	blocked  error // why it may not; nil: it may
}

// tables are what registries.conf says.
func (s settings) tables() (*registriesconf.Config, error) {
	if s.conf == nil {
		return nil, nil
	}
	return s.conf()
}

// direct is the endpoint that a repository's own name stands for. What is pushed goes there:
// mirrors and other locations are for what is read, as for Podman.
func (s settings) direct(repo repository) (endpoint, error) {
	conf, err := s.tables()
	if err != nil {
		return endpoint{}, err
	}
	return endpointOf(conf, repo), nil
}

func endpointOf(conf *registriesconf.Config, repo repository) endpoint {
	e := endpoint{repository: repo}
	if table := conf.Find(repo.String()); table != nil {
		e.insecure = table.Insecure
		if table.Blocked {
			e.blocked = blockedBy(table)
		}
	}
	return e
}

func blockedBy(table *registriesconf.Registry) error {
	return fmt.Errorf("registry %s: blocked by %s", table.Prefix, table.File)
}

// sources are the endpoints that have what repo has, the preferred ones first, the one that stands
// for repo itself last. Mirrors are those that the user's variable has for the host, or else those of
// registries.conf where that has a table for the repository, or else those of a Docker engine.
func (s settings) sources(repo repository, byDigest bool) ([]endpoint, error) {
	conf, err := s.tables()
	if err != nil {
		return nil, err
	}
	table := conf.Find(repo.String())
	var all []endpoint
	for _, m := range repo.at(s.mirrors) {
		all = append(all, endpointOf(conf, m))
	}
	if table == nil {
		for _, m := range repo.at(s.docker) {
			all = append(all, endpointOf(conf, m))
		}
		return append(all, endpointOf(conf, repo)), nil
	}
	sources := table.Sources(repo.String(), byDigest)
	if len(all) > 0 {
		sources = sources[len(sources)-1:]
	}
	for _, source := range sources {
		e, err := sourceEndpoint(conf, source)
		if err != nil {
			return nil, fmt.Errorf("%s: registry %s: %w", table.File, table.Prefix, err)
		}
		all = append(all, e)
	}
	// The manual page forbids more than Podman does, to which another location is another registry.
	if last := &all[len(all)-1]; table.Blocked && last.blocked == nil {
		last.blocked = blockedBy(table)
	}
	return all, nil
}

// at is where mirrors have the repository.
func (r repository) at(mirrors []mirror) []repository {
	var all []repository
	for _, m := range mirrors {
		if m.of == r.host {
			all = append(all, repository{m.host, strings.TrimPrefix(m.path+"/"+r.path, "/")})
		}
	}
	return all
}

// sourceEndpoint is the endpoint that registries.conf names. That it is insecure is said where it is named.
func sourceEndpoint(conf *registriesconf.Config, source registriesconf.Source) (endpoint, error) {
	repo, err := parseRepository(source.Name)
	if err != nil {
		return endpoint{}, err
	}
	if repo.String() != source.Name {
		return endpoint{}, fmt.Errorf("%q does not begin with the name of a host", source.Name)
	}
	e := endpointOf(conf, repo)
	e.insecure = source.Insecure
	return e, nil
}

// registry is the endpoint's registry. That plain HTTP may be tried does not mean that it is:
// TLS is tried before.
func (s settings) registry(e endpoint) (name.Registry, error) {
	var o []name.Option
	if e.insecure || s.insecure(e.host) {
		o = append(o, name.Insecure)
	}
	r, err := name.NewRegistry(e.host, o...)
	if err != nil {
		return name.Registry{}, fmt.Errorf("registry %s: %w", e.host, err)
	}
	return r, nil
}
