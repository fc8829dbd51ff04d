package rootemu

import "golang.org/x/sys/unix"

var machines = []machine{{arch: unix.AUDIT_ARCH_AARCH64, calls: common}}
