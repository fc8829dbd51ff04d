package container

import (
	"encoding/json"
	"fmt"
	"strings"
)

// An ImageConfig is what a container's configuration says of how programs in it are run: the
// object "config" of the OCI image specification, config.md.
type ImageConfig struct {
	User       string // name or number, and after a colon that of the group; "" for root
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
}

// ImageConfig decodes the container's configuration; the zero value if it has none. Env
// has the form NAME=VALUE throughout, each name once, with its last value: whatever else an image
// lists is no variable.
func (r Record) ImageConfig() (ImageConfig, error) {
	if r.Config == nil {
		return ImageConfig{}, nil
	}
	var image struct{ Config ImageConfig }
	if err := json.Unmarshal(r.Config, &image); err != nil {
		return ImageConfig{}, fmt.Errorf("read the configuration of container %d: %w", r.ID, err)
	}
	image.Config.Env = variables(image.Config.Env)
	return image.Config, nil
}

// variables gives the entries of a list that are variables.
func variables(list []string) []string {
	var vars []string
	at := map[string]int{}
	for _, v := range list {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.ContainsRune(v, 0) {
			continue
		}
		if i, again := at[name]; again {
			vars[i] = v
			continue
		}
		at[name] = len(vars)
		vars = append(vars, v)
	}
	return vars
}
