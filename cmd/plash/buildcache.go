package main

import (
	"os"
	"strings"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
	"github.com/ihucos/plash/importexport/registry"
	"github.com/spf13/pflag"
)

// cacheOptions say with which repositories built layers are shared; "" is what the
// environment says.
type cacheOptions struct{ from, to string }

func (o *cacheOptions) declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.from, "cache-from", "", "take built layers from these `REPO`sitories, separated by commas")
	flags.StringVar(&o.to, "cache-to", "", "take built layers from this `REPO`sitory, and put them there")
}

// open returns the cache, nil if no repository is named. Done waits until what was built is there.
func (o cacheOptions) open(st *container.Store, d display, s streams) (cache build.Cache, done func(), err error) {
	if o.from == "" {
		o.from = os.Getenv("PLASH_CACHE_FROM")
	}
	if o.to == "" {
		o.to = os.Getenv("PLASH_CACHE_TO")
	}
	var from []string
	for name := range strings.SplitSeq(o.from, ",") {
		if name = strings.TrimSpace(name); name != "" {
			from = append(from, name)
		}
	}
	if len(from) == 0 && o.to == "" {
		return nil, func() {}, nil
	}
	c, err := importexport.NewBuildCache(st, registry.LayerCacheOptions{
		CacheRepositories: registry.CacheRepositories{From: from, To: strings.TrimSpace(o.to)},
		Progress:          d.progress(s),
		Warn:              func(err error) { s.warn("build", err) },
	}, userAgent())
	if err != nil {
		return nil, nil, &usageError{what: err.Error(), hint: "a repository is HOST/NAME, without a tag: localhost:5000/cache"}
	}
	return c, c.Close, nil
}
