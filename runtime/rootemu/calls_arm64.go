package rootemu

import "golang.org/x/sys/unix"

var machines = []machine{{arch: unix.AUDIT_ARCH_AARCH64, calls: common}}

// Where shared libraries are if the stack may grow without limit, as the upper half of an
// address: above a quarter of an address space of 48 bits (mm/util.c, mmap_is_legacy).
const (
	librariesFrom = 0x4000
	librariesTo   = 0x7000
)
