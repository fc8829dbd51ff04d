//go:build amd64 || arm64

package replay

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"
)

// A device stands for the kernel's end of a FUSE mount: it sends requests, and then is silent or ends.
type device struct {
	requests [][]byte
	replies  []string
	calls    []uintptr
	files    map[string]string // what can be opened
	opened   []string
}

func (d *device) do(number, a, b, c, e, _, _ uintptr) uintptr {
	d.calls = append(d.calls, number)
	switch number {
	case sysPpoll:
		if len(d.requests) == 0 {
			return 0
		}
		return 1
	case sysRead:
		r := d.requests[0]
		d.requests = d.requests[1:]
		if len(r) == 8 {
			return uintptr(get64(r)) // an error
		}
		return uintptr(copy(requestBuf[:], r))
	case sysWrite:
		if replyBuf[8] == unwanted {
			return ^uintptr(21) // -EINVAL
		}
		d.replies = append(d.replies, string(unsafe.Slice((*byte)(unsafe.Pointer(&replyBuf)), c)))
	case sysOpenat:
		path := table.paths[slices.IndexFunc(table.paths[:], func(p []byte) bool { return address(p) == b })]
		d.opened = append(d.opened, string(path))
		if _, ok := d.files[string(path)]; !ok {
			return enoent
		}
		return uintptr(100 + len(d.opened) - 1)
	case sysPread64:
		text := d.files[d.opened[a-100]]
		if int(e) > len(text) {
			return 0
		}
		return uintptr(copy(replyBuf[replyHeader:][:c], text[e:]))
	}
	return 0
}

// unwanted is the number of a request whose answer the kernel does not take.
const unwanted = 99

// TestAnswerFirst: what is known is answered, from the blobs where it lies there, and Go gets the
// first request that is not.
func TestAnswerFirst(t *testing.T) {
	begin := testRequest(opcodeInit, 1, 0, "the kernel's flags")
	bin := testRequest(opcodeLookup, 2, 1, "bin\x00")
	read, more := testRequest(opcodeRead, 4, 7, "0, 5"), testRequest(opcodeRead, 6, 7, "5, 5")
	other := testRequest(opcodeLookup, 8, 1, "other\x00")
	begun, entry := string(testReply(0, 1, "our flags")), string(testReply(0, 2, "entry of bin"))
	blob := map[string]string{"/a/blob": string(make([]byte, 512)) + "helloworld"}
	hello, world := string(testReply(0, 4, "hello")), string(testReply(0, 6, "world"))
	tooLong := testRequest(opcodeInit, 1, 0, string(make([]byte, len(initBuf))))
	for name, c := range map[string]struct {
		requests [][]byte
		files    map[string]string
		replies  []string
		last     []byte // for Go
		init     bool   // was answered
		opened   int
	}{
		"all":              {[][]byte{begin, bin, read, more}, blob, []string{begun, entry, hello, world}, nil, true, 1},
		"nothing comes":    {nil, blob, nil, nil, false, 0},
		"unknown":          {[][]byte{begin, bin, other, read}, blob, []string{begun, entry}, other, true, 0},
		"another kernel":   {[][]byte{other, bin}, blob, nil, other, false, 0},
		"too long":         {[][]byte{tooLong, bin}, blob, nil, tooLong, false, 0},
		"no answer wanted": {[][]byte{begin, testRequest(opcodeForget, 3, 7, "1"), testRequest(opcodeInterrupt, 5, 0, "2"), bin}, blob, []string{begun, entry}, nil, true, 0},
		"taken back":       {[][]byte{begin, append64(nil, uint64(enoent)), append64(nil, uint64(eagain)), append64(nil, uint64(eintr)), bin}, blob, []string{begun, entry}, nil, true, 0},
		"an error":         {[][]byte{begin, append64(nil, ^uint64(4)), bin}, blob, []string{begun}, nil, true, 0},
		"no blob":          {[][]byte{begin, read, bin}, nil, []string{begun}, read, true, 1},
		"a short blob":     {[][]byte{begin, read, more}, map[string]string{"/a/blob": blob["/a/blob"][:520]}, []string{begun, hello}, more, true, 1},
		"not taken":        {[][]byte{begin, testRequest(opcodeLookup, unwanted, 1, "bin\x00")}, blob, []string{begun}, testRequest(opcodeLookup, unwanted, 1, "bin\x00"), true, 0},
		"short":            {[][]byte{begin, bin[:20]}, blob, []string{begun}, bin[:20], true, 0},
		"without end":      {slices.Repeat([][]byte{bin}, 2*maxAnswered), blob, slices.Repeat([]string{entry}, maxAnswered), nil, false, 0},
	} {
		file := filepath.Join(t.TempDir(), "answers")
		if err := os.WriteFile(file, testAnswers(t).Encode(), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		served.Answers, served.Key = int(f.Fd()), testKey
		d := &device{requests: c.requests, files: c.files}
		m := &machine{do: d.do}
		m.answerFirst()
		if !slices.Equal(d.replies, c.replies) {
			t.Errorf("%s: replies %q, want %q", name, d.replies, c.replies)
		}
		if !bytes.Equal(served.Request, c.last) || (served.Init != nil) != c.init || c.init && (!bytes.Equal(served.Init, begin) || string(served.InitReply) != begun) {
			t.Errorf("%s: Go gets %q and %q", name, served.Init, served.Request)
		}
		closed := 0
		for _, n := range d.calls {
			if n == sysClose {
				closed++
			}
		}
		if n := len(d.opened); n != c.opened || c.files != nil && closed != n {
			t.Errorf("%s: %d files were opened and %d closed, want %d", name, n, closed, c.opened)
		}
		served = Server{}
		f.Close()
	}
}

// TestAnswerNone: without a file that holds answers for the plan, nothing is asked of the device.
func TestAnswerNone(t *testing.T) {
	good := testAnswers(t).Encode()
	other := bytes.Clone(testKey)
	other[0]++
	for i, c := range []struct{ content, key []byte }{
		{nil, testKey}, {good[:len(good)-8], testKey}, {good, other}, {make([]byte, MaxAnswersSize+1), testKey}, {good, make([]byte, KeySize)},
	} {
		file := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(file, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		served.Answers, served.Key = int(f.Fd()), c.key
		d := &device{requests: [][]byte{testRequest(opcodeInit, 1, 0, "the kernel's flags")}}
		(&machine{do: d.do}).answerFirst()
		if len(d.calls) != 0 || served.Init != nil || served.Request != nil {
			t.Errorf("file %d: calls %d", i, d.calls)
		}
		served = Server{}
		f.Close()
	}
}
