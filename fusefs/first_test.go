package fusefs

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/replay"
)

// A testKernel is the other end of a device: it asks, and gets answers.
type testKernel struct {
	*testing.T
	fd     int
	unique uint64
}

func (k *testKernel) request(opcode uint32, node uint64, body []byte) []byte {
	k.unique++
	b := binary.NativeEndian.AppendUint32(nil, uint32(inHeader+len(body)))
	b = binary.NativeEndian.AppendUint32(b, opcode)
	b = binary.NativeEndian.AppendUint64(b, k.unique)
	b = binary.NativeEndian.AppendUint64(b, node)
	return append(append(b, make([]byte, 16)...), body...)
}

func (k *testKernel) send(request []byte) {
	_, err := unix.Write(k.fd, request)
	must(k, err)
}

// reply gives the error and the data of the answer to a request.
func (k *testKernel) reply(request []byte) (errno int32, data []byte) {
	k.Helper()
	b := make([]byte, maxRequest+outHeader)
	n, err := unix.Read(k.fd, b)
	must(k, err)
	if n < outHeader || binary.NativeEndian.Uint64(b[8:]) != binary.NativeEndian.Uint64(request[8:]) {
		k.Fatalf("reply %q to %q", b[:n], request)
	}
	return -int32(binary.NativeEndian.Uint32(b[4:])), b[outHeader:n]
}

// answered is what the device gets with the data of an answer.
func answered(request, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(outHeader+len(data)))
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(append(b, request[8:16]...), data...)
}

func (k *testKernel) ask(opcode uint32, node uint64, body []byte) []byte {
	k.Helper()
	request := k.request(opcode, node, body)
	k.send(request)
	errno, data := k.reply(request)
	if errno != 0 {
		k.Fatalf("request %q: %v", request, unix.Errno(errno))
	}
	return data
}

func (k *testKernel) lookup(name string) (node uint64, entry []byte) {
	k.Helper()
	entry = k.ask(1, 1, append([]byte(name), 0))
	return binary.NativeEndian.Uint64(entry), entry
}

// readBody is that of a READ: struct fuse_read_in.
func readBody(off uint64, size uint32) []byte {
	b := binary.NativeEndian.AppendUint64(make([]byte, 8), off)
	return append(binary.NativeEndian.AppendUint32(b, size), make([]byte, 20)...)
}

// initBody is what a kernel says of itself: struct fuse_init_in.
func initBody() []byte {
	b := binary.NativeEndian.AppendUint32(nil, 7)
	b = binary.NativeEndian.AppendUint32(b, 41)
	b = binary.NativeEndian.AppendUint32(b, 128<<10)
	b = binary.NativeEndian.AppendUint32(b, 0x40000000|0xffff)
	return append(b, make([]byte, 48)...)
}

// A firstServer has what a plan leaves to a server.
type firstServer struct {
	*testing.T
	config serverConfig
	file   string
	key    []byte
}

// start begins a server, whose end is waited for when the test ends. Ended gets what it
// returns before it serves in earnest.
func (s *firstServer) start(init, reply, request []byte) (k *testKernel, ended chan error) {
	s.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(s, err)
	f, err := os.OpenFile(s.file, os.O_RDWR, 0)
	must(s, err)
	answers, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(s, err)
	must(s, f.Close())
	config := s.config
	out, options := config.mountOptions()
	fs, closeFS, err := config.filesystem(out, options)
	must(s, err)
	ended = make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		served := &replay.Server{Device: pair[1], Answers: answers, Key: s.key, Init: init, InitReply: reply, Request: request}
		server, err := serverOf(served, fs, options, time.Now().Add(time.Hour)) // no time ends it
		ended <- err
		if server != nil {
			server.Serve()
		} else {
			unix.Close(pair[1])
		}
		if err := closeFS(); err != nil {
			s.Errorf("close filesystem: %v", err)
		}
	}()
	s.Cleanup(func() {
		must(s, unix.Close(pair[0]))
		<-finished
	})
	return &testKernel{T: s.T, fd: pair[0], unique: 1000}, ended
}

// TestFirst: the first requests are answered as all others are, and what will be answered the
// same way again is kept. Then all is served at once.
func TestFirst(t *testing.T) {
	store := newStore(t)
	random := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{1}).Read(random)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"data", "other"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(random))}))
		_, err := w.Write(random)
		must(t, err)
	}
	must(t, w.Close())
	layer := ingest(t, store, &b)
	s := &firstServer{
		T: t, file: filepath.Join(t.TempDir(), "answers"), key: []byte("0123456789abcdef"),
		config: serverConfig{Store: store.Dir(), Layers: []digest.Digest{layer}, Source: "first"},
	}
	must(t, os.WriteFile(s.file, nil, 0o600))

	k, ended := s.start(nil, nil, nil)
	begin := k.request(opInit, 0, initBody())
	k.send(begin)
	_, said := k.reply(begin)
	node, entry := k.lookup("data")
	if got := k.ask(opRead, node, readBody(4096, 4096)); !bytes.Equal(got, random[4096:8192]) {
		t.Error("a file reads differently")
	}
	if got := k.ask(opRead, node, readBody(8192, 4096)); !bytes.Equal(got, random[8192:]) {
		t.Error("the end of a file reads differently")
	}
	missing := k.request(5, node, nil) // READLINK of a file
	k.send(missing)
	if errno, _ := k.reply(missing); errno == 0 {
		t.Error("a file is a link")
	}
	for range replay.MaxAnswers {
		k.ask(17, 1, nil) // STATFS
	}
	must(t, <-ended)
	if _, again := k.lookup("data"); !bytes.Equal(again, entry) {
		t.Errorf("entry %q was %q before", again, entry)
	}

	content, err := os.ReadFile(s.file)
	must(t, err)
	known := replay.NewAnswers(s.key, s.files(store))
	if !known.Extend(content) || known.Len() != 5 {
		t.Fatalf("%d answers are kept", known.Len())
	}
	// The body of a request, and the data of its answer.
	for _, pair := range [][]byte{append(initBody(), said...), append([]byte("data\x00"), entry...)} {
		if !bytes.Contains(content, pair) {
			t.Errorf("%q is not kept: %q", pair, content)
		}
	}
	for _, off := range []uint64{4096, 8192} {
		if known.Add(k.request(opRead, node, readBody(off, 4096)), make([]byte, outHeader)); known.Len() != 5 {
			t.Errorf("what was read at %d is not kept", off)
		}
	}

	t.Run("resumed", func(t *testing.T) { s.resumed(t, k, begin, said, known.Len()) })
	t.Run("refused", func(t *testing.T) { s.refused(t, k, begin, said) })
}

// files are those that answers point into: the index, and the blob.
func (s *firstServer) files(store *cas.Store) (files []string) {
	s.Helper()
	view, err := s.config.view(store)
	must(s, err)
	for i := range len(view.Devices()) + 1 {
		files = append(files, view.Device(i).Name())
	}
	must(s, view.Close())
	return files
}

// resumed: after what package replay has answered, the request that it could not answer comes first.
func (s *firstServer) resumed(t *testing.T, k *testKernel, begin, said []byte, before int) {
	s = &firstServer{t, s.config, s.file, s.key}
	waiting := k.request(1, 1, []byte("other\x00"))
	k, ended := s.start(begin, answered(begin, said), waiting)
	if errno, entry := k.reply(waiting); errno != 0 || binary.NativeEndian.Uint64(entry) == 0 {
		t.Errorf("the waiting request got %v, %q", unix.Errno(errno), entry)
	}
	k.lookup("data")
	for range replay.MaxAnswers {
		k.ask(17, 1, nil)
	}
	must(t, <-ended)
	k.lookup("other")
	content, err := os.ReadFile(s.file)
	must(t, err)
	if after := int(binary.LittleEndian.Uint32(content[20:])); after != before+1 {
		t.Errorf("%d answers are kept, there were %d", after, before)
	}
}

// refused: what began as this server would not have begun is ended, and what it began by is
// forgotten.
func (s *firstServer) refused(t *testing.T, k *testKernel, begin, said []byte) {
	s = &firstServer{t, s.config, s.file, s.key}
	said = bytes.Clone(said)
	said[4]++ // the minor version
	_, ended := s.start(begin, answered(begin, said), k.request(17, 1, nil))
	if err := <-ended; err == nil {
		t.Error("it is served")
	}
	if fi, err := os.Stat(s.file); err != nil || fi.Size() != 0 {
		t.Errorf("the file of answers: %v, %v", fi, err)
	}
}
