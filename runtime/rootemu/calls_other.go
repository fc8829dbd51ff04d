//go:build !amd64 && !arm64

package rootemu

// machines are none: no filter stops anything.
var machines []machine

const librariesFrom, librariesTo = 0, 0
