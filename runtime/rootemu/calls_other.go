//go:build !amd64 && !arm64

package rootemu

// machines are none: [Fork] says so.
var machines []machine
