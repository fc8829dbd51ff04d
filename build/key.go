package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// keyVersion is changed whenever equal scripts on equal layers may give
// something else than before: when the environment in which scripts run changes.
const keyVersion = "plash-layer-1"

// Key returns the cache key of a layer: what script makes of a container whose
// layers have the given ChainID ("" for the empty root), and which has that image
// configuration, nil where it has none. It depends on content
// alone, so all machines agree on it, and it may be used where layers are shared.
//
// It is the SHA-256, in lower-case hexadecimal digits, of
//
//	"plash-layer-1" LF CHAIN LF LENGTH LF SCRIPT
//	"plash-layer-1" LF CHAIN SP CONFIG LF LENGTH LF SCRIPT
//
// CHAIN is the ChainID as in the OCI image specification, config.md, with its
// algorithm ("sha256:…"); CONFIG, where there is a configuration, is the digest of its JSON as
// [json.Marshal] compacts it, which is how records have it; LENGTH is the number of bytes of SCRIPT in decimal; LF is
// a newline, SP a space. SCRIPT begins with [Prologue] and ends with a newline.
func Key(chain digest.Digest, config json.RawMessage, script string) string {
	base := string(chain)
	if config != nil {
		base += " " + configDigest(config).String()
	}
	h := sha256.New()
	for _, s := range []string{keyVersion, base, strconv.Itoa(len(script))} {
		io.WriteString(h, s+"\n")
	}
	io.WriteString(h, script)
	return hex.EncodeToString(h.Sum(nil))
}

// configDigest is the digest of a configuration, whatever its white space; of what is no JSON, of its bytes.
func configDigest(config json.RawMessage) digest.Digest {
	b, err := json.Marshal(config)
	if err != nil {
		b = config
	}
	return digest.SHA256.FromBytes(b)
}
