package replay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var testKey = []byte("0123456789abcdef")

// testRequest is one as the kernel sends it.
func testRequest(opcode uint32, unique, node uint64, body string) []byte {
	b := append32(nil, uint32(requestHeader+len(body)))
	b = append64(append64(append32(b, opcode), unique), node)
	b = append(b, "uid.gid.pid."...)
	return append(append32(b, 0), body...)
}

func testReply(errno int32, unique uint64, data string) []byte {
	b := append32(nil, uint32(replyHeader+len(data)))
	return append(append64(append32(b, uint32(errno)), unique), data...)
}

const (
	opcodeLookup = 1
	opcodeOpen   = 14
	opcodeRead   = 15
)

// testAnswers are for a beginning, a name, a file that is read in two pieces, and an error.
func testAnswers(tb testing.TB) *Answers {
	tb.Helper()
	a := NewAnswers(testKey, []string{"/the/index", "/a/blob"})
	for i, ok := range []bool{
		a.Add(testRequest(opcodeInit, 1, 0, "the kernel's flags"), testReply(0, 1, "our flags")),
		a.Add(testRequest(opcodeLookup, 2, 1, "bin\x00"), testReply(0, 2, "entry of bin")),
		a.Add(testRequest(opcodeOpen, 3, 7, "flags"), testReply(-38, 3, "")),
		a.AddFile(testRequest(opcodeRead, 4, 7, "0, 5"), 1, 512, 5),
		a.AddFile(testRequest(opcodeRead, 5, 7, "5, 5"), 1, 517, 5),
		a.Add(testRequest(opcodeFlush, 6, 7, "who closes it"), testReply(-38, 6, "")),
		a.Add(testRequest(opcodeLookup, 7, 1, "bin\x00"), testReply(0, 7, "another one is not added")),
	} {
		if !ok {
			tb.Fatalf("answer %d was not added", i)
		}
	}
	return a
}

// describe is all that a table says.
func describe(t *answerTable) string {
	var b strings.Builder
	for i := range t.files {
		fmt.Fprintf(&b, "%q ", t.paths[i])
	}
	for i := range t.count {
		e := answer(t.content[t.at[i]:t.at[i+1]])
		fmt.Fprintf(&b, "| %d %d %d", get32(e), int32(get32(e[4:])), get64(e[8:]))
		if e.file() == noFile {
			fmt.Fprintf(&b, " %q ", e.data())
		} else {
			fmt.Fprintf(&b, " %d+%d of %d ", e.offset(), e.size(), e.file())
		}
	}
	return b.String()
}

func TestAnswers(t *testing.T) {
	a := testAnswers(t)
	b := a.Encode()
	var table answerTable
	if !table.load(b, testKey) || len(b) != a.Size() || a.Len() != 6 {
		t.Fatalf("%d answers in %d bytes cannot be read: %q", a.Len(), len(b), b)
	}
	const want = `"/the/index" "/a/blob" | 26 0 0 "our flags" | 1 0 1 "entry of bin" | 14 -38 7 "" | 15 0 7 512+5 of 1 | 15 0 7 517+5 of 1 | 25 -38 7 "" `
	if got := describe(&table); got != want {
		t.Errorf("they are\n%s, want\n%s", got, want)
	}
	for _, c := range []struct {
		request []byte
		found   bool
	}{
		{testRequest(opcodeRead, 9, 7, "5, 5"), true},
		{testRequest(opcodeRead, 9, 7, "0, 5"), true}, // in any order
		{testRequest(opcodeRead, 9, 7, "0, 6"), false},
		{testRequest(opcodeRead, 9, 8, "0, 5"), false},
		{testRequest(opcodeOpen, 9, 7, "0, 5"), false},
		{testRequest(opcodeFlush, 9, 7, "somebody else"), true},
		{testRequest(opcodeLookup, 9, 1, "bin"), false},
		{testRequest(opcodeLookup, 9, 1, "bin\x00")[:requestHeader-1], false},
		{nil, false},
	} {
		if e := table.find(c.request); (e != nil) != c.found {
			t.Errorf("answer to %q: %q", c.request, e)
		}
	}
	// The size of what follows the body (since Linux 6.4).
	more := testRequest(opcodeLookup, 9, 1, "bin\x00")
	more[36] = 1
	if e := table.find(more); e != nil {
		t.Errorf("answer to a request with more than its body: %q", e)
	}
}

// TestAnswersExtend: answers are added to those of the same plan and the same files.
func TestAnswersExtend(t *testing.T) {
	old := testAnswers(t).Encode()
	for _, c := range []struct {
		key   string
		files []string
		ok    bool
	}{
		{string(testKey), []string{"/the/index", "/a/blob"}, true},
		{string(testKey), []string{"/the/index"}, false},
		{string(testKey), []string{"/the/index", "/a/bloc"}, false},
		{strings.ToUpper(string(testKey)), []string{"/the/index", "/a/blob"}, false},
	} {
		a := NewAnswers([]byte(c.key), c.files)
		if ok := a.Extend(old); ok != c.ok || ok && !bytes.Equal(a.Encode(), old) || !ok && a.Len() != 0 {
			t.Errorf("key %s, files %q: %v, %d answers", c.key, c.files, ok, a.Len())
		}
		request := testRequest(opcodeLookup, 8, 1, "usr\x00")
		if !a.Add(request, testReply(0, 8, "entry of usr")) {
			t.Fatal("there is no room")
		}
		var table answerTable
		if !table.load(a.Encode(), []byte(c.key)) || string(table.find(request).data()) != "entry of usr" {
			t.Errorf("key %s, files %q: what was added is not found", c.key, c.files)
		}
		if e := table.find(testRequest(opcodeInit, 1, 0, "the kernel's flags")); (e != nil) != c.ok {
			t.Errorf("key %s, files %q: what was there is found as %q", c.key, c.files, e)
		}
	}
}

func TestAnswersFull(t *testing.T) {
	for name, data := range map[string]string{"count": "x", "size": strings.Repeat("x", 1000)} {
		a, n := NewAnswers(testKey, nil), 0
		for a.Add(testRequest(opcodeLookup, 1, uint64(n), "name\x00"), testReply(0, 1, data)) {
			n++
		}
		var table answerTable
		if b := a.Encode(); !table.load(b, testKey) || table.count != n || n < 100 || n > MaxAnswers || len(b) > MaxAnswersSize {
			t.Errorf("%s: %d answers in %d bytes, %d read", name, n, len(b), table.count)
		}
	}
	if a := NewAnswers(testKey, slices.Repeat([]string{"/a"}, MaxAnswerFiles+1)); new(answerTable).load(a.Encode(), testKey) {
		t.Error("more files than there is room for are read")
	}
}

// TestAnswersDamaged: no part of a file is taken for a whole, and no bit of it is without
// meaning.
func TestAnswersDamaged(t *testing.T) {
	b := testAnswers(t).Encode()
	var table answerTable
	for n := range len(b) {
		if table.load(b[:n:n], testKey) {
			t.Errorf("%d of %d bytes are read", n, len(b))
		}
		damaged := bytes.Clone(b)
		damaged[n] ^= 1 << (n % 8)
		if table.load(damaged, testKey) {
			t.Errorf("with byte %d damaged, it is read", n)
		}
	}
	if table.load(append(bytes.Clone(b), make([]byte, 8)...), testKey) {
		t.Error("what is longer than it says is read")
	}
}

// FuzzAnswers: whatever is in a file with a right checksum, what it says lies in it.
func FuzzAnswers(f *testing.F) {
	b := testAnswers(f).Encode()
	f.Add(b[answersHeader:], uint32(6))
	f.Add(b[answersHeader:], uint32(MaxAnswers+1))
	f.Add(testKey, uint32(0))
	f.Fuzz(func(t *testing.T, all []byte, count uint32) {
		all = pad(bytes.Clone(all))
		b := binary.LittleEndian.AppendUint32([]byte(answersMagic), uint32(answersHeader+len(all)))
		b = binary.LittleEndian.AppendUint32(b, count)
		b = append(binary.LittleEndian.AppendUint64(b, sum64(all)), all...)
		key := make([]byte, KeySize)
		copy(key, all)
		var table answerTable
		if !table.load(b[:len(b):len(b)], key) {
			return
		}
		describe(&table)
		table.find(testRequest(opcodeRead, 9, 7, "5, 5"))
		for i := range table.count {
			e := answer(table.content[table.at[i]:table.at[i+1]])
			if e.file() != noFile && (e.file() >= table.files || e.size() > maxReply) || len(e) > len(b) || e.file() == noFile && len(e.data()) > maxReply {
				t.Errorf("answer %d is %q", i, e)
			}
		}
	})
}
