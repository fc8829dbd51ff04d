package union

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// quotaState is QCMD(Q_XGETQSTATV, USRQUOTA), which anyone may ask: include/uapi/linux/dqblk_xfs.h, quota.h.
	quotaState        = ('X'<<8 + 8) << 8
	quotaStateVersion = 1 // FS_QSTATV_VERSION1

	btrfsFSInfo = 0x8400941f // BTRFS_IOC_FS_INFO: include/uapi/linux/btrfs.h
)

// quotas tells whether quotas are in force on the filesystem of an open directory. There
// the kernel must not collect what is written: that it is too much would be known after
// write(2), and close(2) calls it EIO (fs/fuse/file.c, fuse_flush: an error of writing back
// is ENOSPC or EIO, whatever the server has said).
func quotas(dir int) bool {
	// struct fs_quota_statv: version, padding, 16 bits of flags, and more than is of interest.
	var state [256]byte
	state[0] = quotaStateVersion
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(dir), quotaState, 0, uintptr(unsafe.Pointer(&state)), 0, 0)
	if errno == 0 {
		return binary.NativeEndian.Uint16(state[2:]) != 0
	}
	return btrfsQuotas(dir)
}

// btrfsQuotas tells it of btrfs, which has quotas of its own.
func btrfsQuotas(dir int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(dir, &fs) != nil || fs.Type != unix.BTRFS_SUPER_MAGIC {
		return false
	}
	// struct btrfs_ioctl_fs_info_args: max_id, num_devices, fsid, more.
	var info [1024]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), btrfsFSInfo, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return false
	}
	id := info[16:32]
	at := fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/qgroups", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return unix.Access(at, unix.F_OK) == nil
}
