package fusefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/replay"
)

// A first answers the first requests of a run, one after the other, and keeps the answers for the
// next run: package replay gives them before Go has started. They depend on nothing but
// the request, as nothing ever changes and all are told the same.
type first struct {
	fs       *filesystem
	device   int
	protocol *fuse.ProtocolServer
	init     []byte // the kernel's first request
	initial  []byte // our reply to it
	answers  *replay.Answers
	file     *os.File
	handled  int // how many requests
	full     bool
	reply    []byte

	known, knownSize int // what answers had before
}

// What one run adds to the answers, at most: one that reads everything is not to
// take the room of all others.
const (
	maxNew     = replay.MaxAnswers / 4
	maxNewSize = replay.MaxAnswersSize / 4
)

// errEnded says that the mount is no more.
var errEnded = errors.New("the mount has ended")

// opcodes of requests whose answers are kept: enum fuse_opcode of include/uapi/linux/fuse.h.
// READ is opRead.
const (
	opRead = 15
	opInit = 26
)

var keptOpcodes = [64]bool{
	1: true, 3: true, 5: true, // LOOKUP, GETATTR, READLINK
	14: true, opRead: true, 17: true, // OPEN, STATFS
	22: true, 23: true, 25: true, opInit: true, // GETXATTR, LISTXATTR, FLUSH
	27: true, 28: true, 34: true, 44: true, // OPENDIR, READDIR, ACCESS, READDIRPLUS
}

// keptErrors are those of answers that say something about the filesystem.
var keptErrors = [...]unix.Errno{0, unix.ENOSYS, unix.ENODATA, unix.ENOENT, unix.ERANGE}

// newFirst is for a server that a plan has started, and which has a file of answers. It answers the
// request that is waiting.
func newFirst(s *replay.Server, fs *filesystem, options *fuse.MountOptions) (*first, error) {
	f := &first{
		fs: fs, device: s.Device, protocol: fuse.NewProtocolServer(fs, options), init: s.Init,
		file: os.NewFile(uintptr(s.Answers), "answers"), reply: make([]byte, maxRequest+4096),
	}
	var files []string
	for i := range fs.devices {
		files = append(files, fs.devices[i].file.Name())
	}
	f.answers = replay.NewAnswers(s.Key, files)
	old, err := io.ReadAll(io.NewSectionReader(f.file, 0, replay.MaxAnswersSize))
	known := replay.NewAnswers(s.Key, files)
	if err != nil || !known.Extend(old) {
		known = f.answers
	}
	if s.Init != nil {
		if err := f.resume(s.Init, s.InitReply); err != nil {
			return f, err
		}
	}
	// Where there is little room left, the file begins again with what is asked now.
	if known.Len() <= replay.MaxAnswers-maxNew && known.Size() <= replay.MaxAnswersSize-maxNewSize {
		f.answers = known
	}
	f.known, f.knownSize = f.answers.Len(), f.answers.Size()
	return f, f.handle(s.Request)
}

// resume goes on where package replay has given the first answers. What the kernel was told
// at the beginning must be what we would have told it.
func (f *first) resume(request, said []byte) error {
	n, _ := f.protocol.HandleRequest([][]byte{request}, [][]byte{f.reply})
	f.initial = bytes.Clone(f.reply[:n])
	if bytes.Equal(said, f.initial) {
		return nil
	}
	err := errors.New("the kernel was told something else of the filesystem than is true")
	return errors.Join(err, f.file.Truncate(0))
}

const (
	inHeader  = 40 // the size of struct fuse_in_header
	outHeader = 16 // and of struct fuse_out_header
)

// serve answers requests until there are enough of them, or the time has come to serve all at
// once. It returns errEnded if there is no mount any more.
func (f *first) serve(until time.Time) error {
	request := make([]byte, maxRequest+4096)
	for f.handled < replay.MaxAnswers && !f.full {
		wait := time.Until(until)
		if wait <= 0 {
			return nil
		}
		poll := []unix.PollFd{{Fd: int32(f.device), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, int(wait.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if poll[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(f.device, request)
		switch {
		case errors.Is(err, unix.ENODEV):
			return errEnded
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("read request: %w", err)
		}
		if err := f.handle(request[:n]); err != nil {
			return err
		}
	}
	return nil
}

// handle answers a request, unless there is none.
func (f *first) handle(request []byte) error {
	if len(request) < inHeader {
		return nil
	}
	f.handled++
	n, _ := f.protocol.HandleRequest([][]byte{request}, [][]byte{f.reply})
	if n < outHeader {
		return nil
	}
	// That the kernel does not want it any more is no error.
	_, err := unix.Write(f.device, f.reply[:n])
	if errors.Is(err, unix.ENODEV) {
		return errEnded
	}
	if binary.NativeEndian.Uint32(request[4:]) == opInit {
		f.init, f.initial = bytes.Clone(request), bytes.Clone(f.reply[:n])
	}
	f.keep(request, f.reply[:n])
	return nil
}

// keep keeps an answer, if it will be the same again.
func (f *first) keep(request, reply []byte) {
	opcode := binary.NativeEndian.Uint32(request[4:])
	errno := -int32(binary.NativeEndian.Uint32(reply[4:]))
	kept := opcode < uint32(len(keptOpcodes)) && keptOpcodes[opcode]
	known := false
	for _, e := range keptErrors {
		known = known || errno == int32(e)
	}
	if f.full = f.answers.Len()-f.known >= maxNew || f.answers.Size()-f.knownSize >= maxNewSize; f.full {
		return
	}
	if !kept || !known || binary.NativeEndian.Uint16(request[36:]) != 0 {
		return
	}
	if opcode != opRead || errno != 0 || len(reply) == outHeader {
		f.full = !f.answers.Add(request, reply)
		return
	}
	in, err := f.fs.inode(binary.NativeEndian.Uint64(request[16:]))
	if err != nil || len(request) < inHeader+20 {
		return
	}
	off := int64(binary.NativeEndian.Uint64(request[inHeader+8:]))
	var found []erofs.Extent
	err = f.fs.image.ExtentsIn(&in, off, int64(len(reply)-outHeader), func(e erofs.Extent) bool {
		found = append(found, e)
		return true
	})
	size := len(reply) - outHeader
	if err == nil && len(found) == 1 && found[0].Off == off && found[0].Len == int64(size) {
		f.full = !f.answers.AddFile(request, found[0].Device, found[0].Phys, size)
	}
}

// save keeps the answers, if there are new ones. The file is not replaced, so that it goes with
// its container, and with its plan; who reads it sees by its checksum that it is
// being written. Where it cannot be written, nothing is lost but time.
func (f *first) save() {
	if f.answers.Len() == f.known || unix.Flock(int(f.file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	b := f.answers.Encode()
	if _, err := f.file.WriteAt(b, 0); err == nil {
		_ = f.file.Truncate(int64(len(b))) // what is behind it makes it none
	}
}

// server makes the server that goes on. The kernel begins a connection once, so the server
// gets that request from us, and has to give the same reply.
func (f *first) server(options *fuse.MountOptions) (*fuse.Server, error) {
	if f.init == nil {
		return fuse.NewServer(f.fs, fuseFD(f.device), options)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	if _, err := unix.Write(pair[0], f.init); err != nil {
		return nil, errors.Join(err, unix.Close(pair[1]))
	}
	server, err := fuse.NewServer(f.fs, fuseFD(pair[1]), options)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(pair[0], f.reply)
	if err != nil || !bytes.Equal(f.reply[:n], f.initial) {
		return nil, errors.Join(errors.New("two servers of one filesystem begin differently"), err)
	}
	// Now it goes on with the device.
	return server, errors.Join(unix.Dup3(f.device, pair[1], unix.O_CLOEXEC), unix.Close(f.device))
}

// serverOf makes the server of a mount that a plan has made, after the first answers; none if the
// mount has ended by then.
func serverOf(s *replay.Server, served fuse.RawFileSystem, options *fuse.MountOptions, begun time.Time) (*fuse.Server, error) {
	fs, ok := served.(*filesystem)
	if !ok || s.Answers < 0 || len(fs.devices) > replay.MaxAnswerFiles ||
		!filepath.IsAbs(fs.devices[0].file.Name()) { // an index in memory
		return fuse.NewServer(served, fuseFD(s.Device), options)
	}
	f, err := newFirst(s, fs, options)
	if err == nil {
		err = f.serve(begun.Add(settleAfter))
	}
	if err == nil || errors.Is(err, errEnded) {
		f.save()
	}
	if errors.Is(err, errEnded) {
		return nil, f.file.Close()
	}
	if err = errors.Join(err, f.file.Close()); err == nil {
		return f.server(options)
	}
	options.Logger.Print(err) // a command that has begun gets no other answer than that there is none
	return nil, err
}
