package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
)

// A CompressedForm is a form in which a layer is stored elsewhere: compressing it again
// would most likely give other bytes, and so another digest.
type CompressedForm struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"` // of the compressed bytes
	Size      int64         `json:"size"`   // of the compressed bytes
	// From is the registry/repository in which it was seen, "" for none.
	From string `json:"from,omitempty"`
}

const (
	// compressedDir has a file for each layer that was seen compressed, below the
	// store's directory.
	compressedDir = "compressed/sha256"
	// maxForms is how many forms of a layer are remembered; the oldest are forgotten.
	maxForms = 16
)

func compressedFile(diffID digest.Digest) string {
	return compressedDir + "/" + diffID.Encoded() + ".json"
}

// Compressed returns the forms that the layer diffID is known to have, the one seen last
// first. What cannot be read is not known.
func Compressed(st *cas.Store, diffID digest.Digest) []CompressedForm {
	if !isSHA256(diffID) {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(st.Dir(), compressedFile(diffID)))
	if err != nil {
		return nil
	}
	var forms []CompressedForm
	if json.Unmarshal(b, &forms) != nil {
		return nil // torn: it is never synced
	}
	return slices.DeleteFunc(forms, func(f CompressedForm) bool {
		return f.Digest.Validate() != nil || f.Size < 0 || f.MediaType == ""
	})
}

// RememberCompressed notes a form of the layer diffID, whose bytes the caller has seen
// and verified. Of two notes at the same moment one may be lost: it is only a hint.
func RememberCompressed(st *cas.Store, diffID digest.Digest, form CompressedForm) error {
	if !isSHA256(diffID) {
		return fmt.Errorf("remember layer %q: not a SHA-256 digest", diffID)
	}
	if err := form.Digest.Validate(); err != nil {
		return fmt.Errorf("remember layer %s: %q: %w", diffID, form.Digest, err)
	}
	forms := Compressed(st, diffID)
	if len(forms) > 0 && forms[0] == form {
		return nil
	}
	forms = slices.DeleteFunc(forms, func(f CompressedForm) bool { return f == form })
	forms = slices.Insert(forms, 0, form)
	b, err := json.Marshal(forms[:min(len(forms), maxForms)])
	if err != nil {
		return fmt.Errorf("remember layer %s: %w", diffID, err)
	}
	if err := os.MkdirAll(filepath.Join(st.Dir(), compressedDir), 0o755); err != nil {
		return fmt.Errorf("remember layer %s: %w", diffID, err)
	}
	return st.WriteHint(compressedFile(diffID), append(b, '\n'))
}

// CollectCompressed forgets the forms of layers that are not in the store any more. It is
// a [container.Collector].
func CollectCompressed(st *cas.Store, layers, _ map[digest.Digest]bool) (freed int64, err error) {
	dir := filepath.Join(st.Dir(), compressedDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("collect compressed forms: %w", err)
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && layers[digest.NewDigestFromEncoded(digest.SHA256, hex)] {
			continue
		}
		info, infoErr := e.Info()
		rmErr := os.Remove(filepath.Join(dir, e.Name()))
		switch {
		case rmErr == nil && infoErr == nil:
			freed += info.Size()
		case rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist):
			err = errors.Join(err, fmt.Errorf("collect compressed forms: %w", rmErr))
		}
	}
	return freed, err
}

var _ container.Collector = CollectCompressed

// isSHA256 reports whether d is a well-formed digest of the algorithm that the store has.
func isSHA256(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}
