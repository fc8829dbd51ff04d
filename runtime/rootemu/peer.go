package rootemu

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// getpeercred is getsockopt(SO_PEERCRED): a server may ask a client who it is. The
// answer is what the peer is now, and not what it was when it connected.
func getpeercred(c *caller) answer {
	var size [4]byte
	if c.readAll(c.addr(4), size[:]) != nil || binary.NativeEndian.Uint32(size[:]) != unix.SizeofUcred {
		return asItWere
	}
	peer, err := c.peer(int(c.num(0)))
	if err != nil {
		return asItWere
	}
	cr, known, err := c.ids.of(int(peer.Pid))
	if err != nil || !known {
		return asItWere
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(peer.Pid))
	b = binary.NativeEndian.AppendUint32(b, cr.uid[effective])
	b = binary.NativeEndian.AppendUint32(b, cr.gid[effective])
	return fails(c.write(c.addr(3), b))
}

// peer asks the kernel who is at the other end of a socket of the caller.
func (c *caller) peer(fd int) (*unix.Ucred, error) {
	pidfd, err := unix.PidfdOpen(int(c.Pid), unix.PIDFD_THREAD)
	if err != nil { // before Linux 6.9, or a thread that is no process
		pidfd, err = unix.PidfdOpen(int(c.Pid), 0)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0) // Linux 5.6
	if err != nil {
		return nil, err
	}
	defer unix.Close(own)
	return unix.GetsockoptUcred(own, unix.SOL_SOCKET, unix.SO_PEERCRED)
}
