package union

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// canPass tells whether files can be handed to the kernel (Linux 6.9), so that it reads and
// writes them by itself. It must be known before the mount: the kernel has either
// that or the writeback cache.
var canPass = sync.OnceValue(func() bool {
	if !privileged() {
		return false
	}
	flags, err := kernelFlags()
	return err == nil && flags&fuse.CAP_PASSTHROUGH != 0
})

// privileged tells whether this process has CAP_SYS_ADMIN in the initial user namespace,
// without which the kernel takes no files.
func privileged() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295" {
		return false
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// kernelFlags asks the kernel what it offers to FUSE servers, by a mount that is
// attached nowhere.
func kernelFlags() (uint64, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(dev)
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fs)
	for key, value := range map[string]string{
		"fd": strconv.Itoa(dev), "rootmode": "40000", "user_id": "0", "group_id": "0",
	} {
		err = errors.Join(err, unix.FsconfigSetString(fs, key, value))
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return 0, err
	}
	// struct fuse_in_header (40 bytes) and fuse_init_in of linux/fuse.h
	buf := make([]byte, 8192)
	n, err := again(func() (int, error) { return unix.Read(dev, buf) })
	if err != nil || n < 60 {
		return 0, errors.Join(err, unix.EIO)
	}
	return uint64(binary.NativeEndian.Uint32(buf[52:])) | uint64(binary.NativeEndian.Uint32(buf[56:]))<<32, nil
}
