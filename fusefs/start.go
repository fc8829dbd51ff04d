package fusefs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/replay"
)

// A server is our side of a server that is not told yet what device to serve.
type server struct {
	socket *os.File
}

// newConfig is for a stack of layers.
func newConfig(store *cas.Store, layers []digest.Digest, o *Options) serverConfig {
	return serverConfig{
		Store: store.Dir(), Layers: layers, Places: o.Places, Source: o.Source,
		Upper: o.Upper, Work: o.Work, Volatile: o.Volatile, Stacked: o.Stacked, Awaited: force.awaited,
	}
}

// startServer starts a server. It waits for the device, and ends if we do before it has got
// one.
func startServer(config *serverConfig, o *Options) (_ *server, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	// Not blocking, so that waiting for an answer can be broken off.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket pair: %w", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	s := &server{socket: os.NewFile(uintptr(fds[0]), "socket")}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	defer func() {
		if err != nil {
			s.socket.Close()
		}
	}()
	configOut, configIn, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer configIn.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{starterName, o.Source, replay.OwnMounts}, Env: []string{}, Dir: "/",
		ExtraFiles: []*os.File{configOut, theirs}, // configFD, socketFD
	}
	if o.Log != nil {
		cmd.Stderr = o.Log
	}
	err = cmd.Start()
	configOut.Close()
	if err != nil {
		return nil, fmt.Errorf("start FUSE server: %w", err)
	}
	// The starter ends when it has started the server; both hold the same pipe.
	err = json.NewEncoder(configIn).Encode(config)
	waitErr := cmd.Wait()
	if err == nil {
		err = waitErr
	}
	if err != nil {
		var status serverStatus
		if json.NewDecoder(s.socket).Decode(&status) == nil && status.Failure != "" {
			return nil, errors.New(status.Failure)
		}
		return nil, fmt.Errorf("start FUSE server: %w", err)
	}
	return s, nil
}

// send gives the server the FUSE device, which has to be mounted by now.
func (s *server) send(device int) error {
	if err := s.control(func(fd int) error {
		return unix.Sendmsg(fd, []byte{0}, unix.UnixRights(device), nil, unix.MSG_NOSIGNAL)
	}); err != nil && !errors.Is(err, unix.EPIPE) { // EPIPE: wait tells why
		return fmt.Errorf("hand FUSE device to the server: %w", err)
	}
	return nil
}

// wait waits until the mount answers.
func (s *server) wait(ctx context.Context) (status serverStatus, err error) {
	stop := context.AfterFunc(ctx, func() { _ = s.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = json.NewDecoder(s.socket).Decode(&status)
	switch {
	case ctx.Err() != nil:
		return status, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return status, errors.New("the FUSE server ended without a word")
	case err != nil:
		return status, fmt.Errorf("wait for the FUSE server: %w", err)
	case status.Failure != "":
		return status, errors.New(status.Failure)
	}
	return status, nil
}

// control does something with the descriptor of the socket.
func (s *server) control(f func(fd int) error) error {
	conn, err := s.socket.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := conn.Control(func(fd uintptr) { err = f(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// close ends the server, unless it serves a mount.
func (s *server) close() error {
	if err := s.socket.Close(); err != nil {
		return fmt.Errorf("close socket of the FUSE server: %w", err)
	}
	return nil
}

// receiveFile takes a descriptor from a socket.
func receiveFile(socket *os.File) (int, error) {
	conn, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	if ctlErr := conn.Read(func(fd uintptr) bool {
		n, oobn, _, _, err = unix.Recvmsg(int(fd), data[:], oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN)
	}); ctlErr != nil {
		return -1, ctlErr
	}
	switch {
	case err != nil:
		return -1, err
	case n == 0 && oobn == 0:
		return -1, io.ErrUnexpectedEOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return -1, fmt.Errorf("a message without a descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("a message without a descriptor: %w", err)
	}
	return fds[0], nil
}
