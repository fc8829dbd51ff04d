package registrytest

import (
	"net/http"
	"sync/atomic"
)

// Faults are what goes wrong with a [Registry].
type Faults struct {
	// CutEvery closes the connection after so many bytes of a blob, in either direction; 0:
	// never.
	CutEvery int
	// BusyEvery answers every such request with 429, and FailEvery with 500; 0: none.
	BusyEvery, FailEvery int
	// Dead answers every request with this status; 0: none.
	Dead int
	// Spoil changes a byte of each blob that is sent.
	Spoil bool
	// WrongManifestDigest says of manifests that they have another digest than they have.
	WrongManifestDigest bool
	// CutManifests closes the connection in the middle of so many manifests.
	CutManifests int32
	// NoRanges ignores that only a part of a blob is asked for.
	NoRanges bool
	// NoMounts takes no blob from another repository.
	NoMounts bool
}

// refuse answers instead of the registry. n counts the requests.
func (f *Faults) refuse(w http.ResponseWriter, req *http.Request, n int) bool {
	status := f.Dead
	switch {
	case status != 0:
	case f.BusyEvery > 0 && n%f.BusyEvery == 0:
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "0")
	case f.FailEvery > 0 && n%f.FailEvery == 0:
		status = http.StatusInternalServerError
	default:
		return false
	}
	refuse(w, status, "UNKNOWN", "it does not work now")
	return true
}

// spoil returns the content as it is sent.
func (f *Faults) spoil(content []byte) []byte {
	if !f.Spoil || len(content) == 0 {
		return content
	}
	other := append([]byte(nil), content...)
	other[len(other)-1] ^= 1
	return other
}

// takeCutManifest reports whether this manifest is to be cut off.
func (f *Faults) takeCutManifest() bool {
	return f.CutManifests > 0 && atomic.AddInt32(&f.CutManifests, -1) >= 0
}
