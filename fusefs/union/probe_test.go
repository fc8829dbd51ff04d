package union

import (
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func TestKernelFlags(t *testing.T) {
	needRoot(t)
	flags, err := kernelFlags()
	must(t, err)
	if flags&fuse.CAP_READDIRPLUS == 0 {
		t.Errorf("flags are %#x", flags)
	}
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release := unix.ByteSliceToString(u.Release[:])
	if strings.HasPrefix(release, "6.18") && flags&fuse.CAP_PASSTHROUGH == 0 {
		t.Errorf("flags of Linux %s are %#x", release, flags)
	}
}
