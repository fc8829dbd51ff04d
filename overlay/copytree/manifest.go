package copytree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
)

// A header is the first line of a manifest file, as JSON; the stamps follow it.
type header struct {
	Boot  string // the boot that it was written in
	Chain string // of what the tree is a copy
	// Wary says that the filesystem does not tell of all changes ([overlay.TellsChanges]).
	Wary bool `json:",omitempty"`
	// Adopt says that the tree is that of the chain, but for what is at and below the
	// paths in Doubtful, and that there are no stamps yet.
	Adopt    bool     `json:",omitempty"`
	Doubtful []string `json:",omitempty"`
}

// fits tells whether a copy is one of a chain, made since the machine was started.
func (h *header) fits(chain string) bool {
	return h.Chain == chain && h.Boot == cas.BootID() && h.Boot != "0"
}

var errManifest = errors.New("damaged manifest")

// writeManifest replaces the manifest of a copy. It is not synced, as copies end with
// the boot.
func writeManifest(dir string, h header, m *overlay.Manifest) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	b = append(b, '\n')
	if m != nil {
		b = append(b, m.Encode()...)
	}
	// One name is enough: who writes has the copy's lock.
	tmp := filepath.Join(dir, manifestFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, manifestFile)); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// readManifest reads the manifest of a copy; there are no stamps if it was adopted.
func readManifest(dir string) (h header, m *overlay.Manifest, err error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return h, nil, fmt.Errorf("read manifest: %w", err)
	}
	line, stamps, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return h, nil, fmt.Errorf("read manifest of %s: %w", dir, errManifest)
	}
	if err = json.Unmarshal(line, &h); err == nil && !h.Adopt {
		m, err = overlay.DecodeManifest(stamps)
	}
	if err != nil {
		return h, nil, fmt.Errorf("read manifest of %s: %w", dir, err)
	}
	return h, m, nil
}
