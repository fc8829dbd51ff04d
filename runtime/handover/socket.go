package handover

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Pair makes two sockets that are connected; reads of ours end when it is closed.
func Pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make sockets: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// Send sends open files through a socket.
func Send(socket *os.File, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	conn, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = conn.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// Receive makes descriptors from 0 on of the n files that [Send] sent. They are not close-on-exec.
func Receive(socket *os.File, n int) error {
	var b [1]byte
	control := make([]byte, unix.CmsgSpace(4*n))
	_, size, _, _, err := unix.Recvmsg(int(socket.Fd()), b[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("receive files: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("receive files: %d messages: %w", len(messages), errors.Join(err, unix.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != n {
		return fmt.Errorf("receive files: %d of %d: %w", len(fds), n, errors.Join(err, unix.EPROTO))
	}
	for i, fd := range fds {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("receive files: %w", err)
		}
		unix.Close(fd)
	}
	return nil
}
