//go:build !amd64 && !arm64

package replay

// On other machines nothing is recorded.
const (
	arch = "other"
	// Supported says whether plans can be replayed on this architecture.
	Supported = false
)

// RestoreIgnored has nothing to restore.
func RestoreIgnored() {}

// Ignored knows nothing.
func Ignored(int) bool { return false }

// Detached is for servers that a plan or this package's beginning has made: there are none.
func Detached() bool { return false }

// Started is as Detached.
func Started() (s *Server, ok bool) { return nil, false }

// Early tells that nothing begins before Go.
func Early() bool { return false }
