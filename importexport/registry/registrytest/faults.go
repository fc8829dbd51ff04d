package registrytest

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// Faults are what goes wrong with a [Registry].
type Faults struct {
	// CutEvery closes the connection after so many bytes of a blob, in either direction; 0:
	// never.
	CutEvery int
	// BusyEvery answers every such request with 429, and FailEvery with 500; 0: none. But none
	// is answered so more than three times in a row, as with several clients it might be.
	BusyEvery, FailEvery int
	// Dead answers every request with this status; 0: none.
	Dead int
	// CutUploads closes the connection in the middle of so many uploads; with Forget
	// they cannot be resumed.
	CutUploads int32
	Forget     bool
	// StallUploads takes nothing of so many uploads and says nothing, and keeps the connection.
	StallUploads int32
	// LoseCommits closes the connection instead of saying that an upload is complete, so
	// many times.
	LoseCommits int32
	// LoseLayers has none of the blobs that are larger than configurations.
	LoseLayers bool
	// Mangle changes a byte of each upload.
	Mangle bool
	// ReadOnly takes nothing.
	ReadOnly bool
	// ExpireEvery makes the tokens worthless with every such request; 0: never.
	ExpireEvery int
	// Spoil changes a byte of each blob that is sent, and SpoilOver of those with more bytes
	// than that; 0: none.
	Spoil     bool
	SpoilOver int
	// WrongManifestDigest says of manifests that they have another digest than they have.
	WrongManifestDigest bool
	// CutManifests closes the connection in the middle of so many manifests.
	CutManifests int32
	// NoRanges ignores that only a part of a blob is asked for.
	NoRanges bool
	// NoMounts takes no blob from another repository.
	NoMounts bool
}

// refusals count how often requests were refused in a row.
type refusals struct {
	mu     sync.Mutex
	inARow map[string]int
}

// allow reports whether a request may be refused once more, if that is what is to be.
func (c *refusals) allow(req *http.Request, refused bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := req.Method + " " + req.URL.Path
	if !refused || c.inARow[what] == 3 {
		delete(c.inARow, what)
		return false
	}
	if c.inARow == nil {
		c.inARow = map[string]int{}
	}
	c.inARow[what]++
	return true
}

// refuse answers instead of the registry. n counts the requests.
func (f *Faults) refuse(w http.ResponseWriter, req *http.Request, n int, c *refusals) bool {
	status := f.Dead
	every := func(m int) bool { return m > 0 && n%m == 0 }
	busy, fail := every(f.BusyEvery), every(f.FailEvery)
	if !c.allow(req, busy || fail) {
		busy, fail = false, false
	}
	switch {
	case status != 0:
	case f.ReadOnly && req.Method != http.MethodGet && req.Method != http.MethodHead:
		status = http.StatusMethodNotAllowed
	case busy:
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "0")
	case fail:
		status = http.StatusInternalServerError
	default:
		return false
	}
	refuse(w, status, "UNKNOWN", "it does not work now")
	return true
}

// spoil returns the content as it is sent.
func (f *Faults) spoil(content []byte) []byte {
	if len(content) == 0 || !f.Spoil && (f.SpoilOver == 0 || len(content) <= f.SpoilOver) {
		return content
	}
	other := append([]byte(nil), content...)
	other[len(other)-1] ^= 1
	return other
}

// take reports whether one of so many faults is left.
func take(n *int32) bool { return atomic.AddInt32(n, -1) >= 0 }
