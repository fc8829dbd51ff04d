//go:build race

package overlay

// raced tells that the race detector looks on, and with it the C library.
const raced = true
