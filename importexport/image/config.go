package image

import (
	"encoding/json"
	"fmt"
	"path"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// configOf makes the configuration of a container that is no image as it came: what
// its base has, with the layers on it and how they were made. What plash does not know of
// the base's is kept. The form is in config.md of the OCI image specification.
func configOf(chain []container.Record, o OfOptions) ([]byte, error) {
	fields, err := object(lastConfig(chain))
	if err != nil {
		return nil, err
	}
	// They tell how the base was made (Docker Image Specification v1).
	for _, name := range []string{"container", "container_config", "id", "parent", "parent_id"} {
		delete(fields, name)
	}
	history, base, err := baseHistory(fields, chain)
	if err != nil {
		return nil, err
	}
	for _, r := range chain[base:] {
		entry, err := json.Marshal(historyOf(r, o))
		if err != nil {
			return nil, err
		}
		history = append(history, entry)
	}
	layers := make([]digest.Digest, len(chain))
	for i, r := range chain {
		layers[i] = r.Layer
	}
	set := map[string]any{
		"rootfs":  v1.RootFS{Type: "layers", DiffIDs: layers},
		"history": history,
	}
	if _, ok := fields["created"]; !ok || base < len(chain) {
		set["created"] = timeOf(chain[len(chain)-1], o)
	}
	for name, value := range map[string]any{"architecture": goruntime.GOARCH, "os": "linux", "config": struct{}{}} {
		if _, ok := fields[name]; !ok {
			set[name] = value
		}
	}
	for name, value := range set {
		if fields[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(fields)
}

// lastConfig is the configuration that holds for the top of a chain: its own, or that of
// what it stands on; nil for none.
func lastConfig(chain []container.Record) json.RawMessage {
	for i := len(chain) - 1; i >= 0; i-- {
		if chain[i].Config != nil {
			return chain[i].Config
		}
	}
	return nil
}

// baseHistory is the history in a configuration, with an entry for each of the base
// layers it is about.
func baseHistory(fields map[string]json.RawMessage, chain []container.Record) (history []json.RawMessage, base int, err error) {
	var known struct {
		RootFS  v1.RootFS         `json:"rootfs"`
		History []json.RawMessage `json:"history"`
	}
	for name, to := range map[string]any{"rootfs": &known.RootFS, "history": &known.History} {
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return nil, 0, fmt.Errorf("image config: %s: %w", name, err)
			}
		}
	}
	base = len(known.RootFS.DiffIDs)
	if !stands(known.RootFS.DiffIDs, chain) {
		return nil, 0, nil // of another image: its layers tell nothing of these
	}
	described := 0
	for _, raw := range known.History {
		var h v1.History
		if err := json.Unmarshal(raw, &h); err != nil {
			return nil, 0, fmt.Errorf("image config: history: %w", err)
		}
		if !h.EmptyLayer {
			described++
		}
	}
	if described > base {
		// It cannot be true, and would put ours to the wrong layers.
		known.History, described = nil, 0
	}
	// Tools count the entries against the layers, unless there are none at all.
	for ; described < base; described++ {
		known.History = append(known.History, json.RawMessage(`{"comment":"unknown"}`))
	}
	return known.History, base, nil
}

// historyOf says how a layer was made.
func historyOf(r container.Record, o OfOptions) v1.History {
	made := timeOf(r, o)
	script := strings.TrimSpace(strings.TrimPrefix(r.Origin.From, o.Prologue))
	h := v1.History{Created: &made, CreatedBy: script, Comment: "plash " + r.Origin.Kind}
	if r.Origin.Kind != "build" && r.Origin.Kind != "create" {
		// Where a file lay on this machine is no one else's business.
		from := r.Origin.From
		if strings.HasPrefix(from, "/") || strings.HasPrefix(from, ".") {
			from = path.Base(from)
		}
		h.CreatedBy = strings.TrimSpace("plash-" + r.Origin.Kind + " " + from)
	}
	return h
}

func timeOf(r container.Record, o OfOptions) time.Time {
	if o.Epoch != nil {
		return o.Epoch.UTC()
	}
	return r.Created.UTC()
}

// object decodes a JSON object one level deep. Nothing and null are the empty object.
func object(b json.RawMessage) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("image config: %w", err)
		}
	}
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	return m, nil
}
