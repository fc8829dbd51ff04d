package build

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// keyVersion is changed whenever equal scripts on equal layers may give
// something else than before: when the environment in which scripts run changes.
const keyVersion = "plash-layer-1"

// Key returns the cache key of a layer: what script makes of a container whose
// layers have the given ChainID ("" for the empty root). It depends on content
// alone, so all machines agree on it, and it may be used where layers are shared.
//
// It is the SHA-256, in lower-case hexadecimal digits, of
//
//	"plash-layer-1" LF CHAIN LF LENGTH LF SCRIPT
//
// CHAIN is the ChainID as in the OCI image specification, config.md, with its
// algorithm ("sha256:…"); LENGTH is the number of bytes of SCRIPT in decimal; LF is
// a newline. SCRIPT begins with [Prologue] and ends with a newline.
func Key(chain digest.Digest, script string) string {
	h := sha256.New()
	for _, s := range []string{keyVersion, string(chain), strconv.Itoa(len(script))} {
		io.WriteString(h, s+"\n")
	}
	io.WriteString(h, script)
	return hex.EncodeToString(h.Sum(nil))
}
