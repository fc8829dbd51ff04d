package tarstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// member is an entry and the data its segments hold.
type member struct {
	Entry
	data []byte
}

func write(t testing.TB, members []member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for i := range members {
		if err := w.WriteHeader(&members[i].Entry); err != nil {
			t.Fatal(err)
		}
		if n, err := w.Write(members[i].data); err != nil || n != len(members[i].data) {
			t.Fatalf("write %q: %d bytes, %v", members[i].Name, n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// checkRead reads an archive back and compares it with what was written.
func checkRead(t testing.TB, b []byte, members []member) {
	t.Helper()
	got, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(members) {
		t.Fatalf("%d entries, want %d", len(got), len(members))
	}
	for i := range got {
		g, m := got[i], members[i]
		if data := b[g.DataOff : g.DataOff+g.DataLen]; !bytes.Equal(data, m.data) {
			t.Errorf("%q: %d bytes of data differ from %d", m.Name, len(data), len(m.data))
		}
		g.DataOff, g.DataLen, g.HeaderOff = 0, 0, 0
		if len(g.Xattrs) == 0 {
			g.Xattrs = m.Xattrs[:0]
		}
		if !reflect.DeepEqual(g, m.Entry) {
			t.Errorf("have %+v\nwant %+v", g, m.Entry)
		}
	}
}

// generator makes random members that every reader can represent.
type generator struct {
	*rand.Rand
	// wild: also what only this package's own Reader brings back
	wild  bool
	count int
}

func newGenerator(seed uint64, wild bool) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 1)), wild: wild}
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g *generator) name(maxLen int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789 .-_+=\\\"'%\n\u00e9\u20ac"
	n := 1 + g.IntN(20)
	if g.IntN(4) == 0 {
		n = 1 + g.IntN(maxLen)
	}
	var b strings.Builder
	g.count++
	fmt.Fprintf(&b, "%d", g.count) // no name twice
	for b.Len() < n {
		switch {
		case g.IntN(9) == 0 && !strings.HasSuffix(b.String(), "/"):
			b.WriteByte('/')
		case g.IntN(60) == 0:
			b.WriteByte(0xff) // not UTF-8
		default:
			r := []rune(letters)
			b.WriteRune(r[g.IntN(len(r))])
		}
	}
	return strings.TrimRight(b.String(), "/")
}

func (g *generator) member() member {
	m := member{Entry: Entry{
		Name: g.name(300), Type: "000000123456"[g.IntN(12)], Mode: g.Uint32N(0o10000),
		UID: g.id(), GID: g.id(), MtimeSec: g.Int64N(1 << 33),
	}}
	switch g.IntN(8) {
	case 0:
		m.MtimeNsec = g.Uint32N(1e9)
	case 1:
		m.MtimeSec, m.MtimeNsec = -g.Int64N(1<<34), g.Uint32N(1e9)
	case 2:
		m.MtimeSec = 1<<33 + g.Int64N(1<<20)
	}
	switch m.Type {
	case TypeReg:
		g.fill(&m)
	case TypeLink, TypeSymlink:
		m.Linkname = g.name(300)
	case TypeChar, TypeBlock:
		m.Devmajor, m.Devminor = g.Uint32N(1<<12), g.Uint32N(1<<20)
	case TypeDir:
		m.Name += "/"
	}
	m.Xattrs = g.xattrs()
	return m
}

func (g *generator) id() uint32 {
	switch g.IntN(6) {
	case 0:
		return g.Uint32N(1<<31 - 1)
	case 1:
		if g.wild {
			return g.Uint32N(math.MaxUint32)
		}
	}
	return g.Uint32N(70000)
}

func (g *generator) fill(m *member) {
	if g.IntN(4) > 0 {
		m.data = g.bytes(g.IntN(3) * g.IntN(1500))
		m.Size = int64(len(m.data))
		return
	}
	m.Sparse = []Segment{}
	off := int64(0)
	for range g.IntN(8) {
		off += g.Int64N(4) * 4096
		s := Segment{off, (1 + g.Int64N(4)) * blockSize}
		off += s.Len
		m.Sparse = append(m.Sparse, s)
		m.data = append(m.data, g.bytes(int(s.Len))...)
	}
	m.Size = off + g.Int64N(3)*1000
	if n := len(m.Sparse); n > 0 && m.Size == off && g.IntN(2) == 0 {
		cut := g.Int64N(blockSize) // the last segment may end anywhere if the file ends there
		m.Sparse[n-1].Len -= cut
		m.Size -= cut
		m.data = m.data[:len(m.data)-int(cut)]
	}
}

func (g *generator) xattrs() (xs []Xattr) {
	if g.IntN(5) > 0 {
		return nil
	}
	for range 1 + g.IntN(5) {
		name := "user." + strings.ReplaceAll(g.name(40), "/", "_")
		if !g.wild {
			name = "user." + fmt.Sprint(g.Uint32())
		}
		xs = append(xs, Xattr{name, g.bytes(g.IntN(200))})
	}
	return sortXattrs(xs)
}

func (g *generator) members(n int) []member {
	ms := make([]member, n)
	for i := range ms {
		ms[i] = g.member()
	}
	return ms
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(50) {
		ms := newGenerator(seed, true).members(60)
		b := write(t, ms)
		checkRead(t, b, ms)
		if again := write(t, ms); !bytes.Equal(b, again) {
			t.Error("the same entries gave other bytes")
		}
	}
}

func TestWriterAgainstStdlib(t *testing.T) {
	for seed := range uint64(20) {
		b := write(t, newGenerator(seed, false).members(60))
		sameAsStdlib(t, b)
	}
}

func TestSparseAlignment(t *testing.T) {
	for seed := range uint64(30) {
		b := write(t, newGenerator(seed, true).members(40))
		all, err := readAll(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			off := e.DataOff
			for _, s := range e.Sparse {
				if off%blockSize != 0 {
					t.Errorf("%q: segment at %d has its data at %d", e.Name, s.Off, off)
				}
				off += s.Len
			}
		}
	}
}

// Segments that are not whole blocks are grown; the content stays the same.
func TestSparseUnaligned(t *testing.T) {
	for seed := range uint64(100) {
		g := newGenerator(seed, true)
		m := member{Entry: Entry{Name: "f", Sparse: []Segment{}, Type: TypeReg}}
		off := int64(0)
		for range g.IntN(12) {
			off += g.Int64N(700)
			s := Segment{off, g.Int64N(1200)}
			off += s.Len
			m.Sparse = append(m.Sparse, s)
			m.data = append(m.data, g.bytes(int(s.Len))...)
		}
		m.Size = off + g.Int64N(2)*g.Int64N(700)
		want := content(m.data, &m.Entry)
		b := write(t, []member{m})
		e := sameAsStdlib(t, b)[0]
		if !bytes.Equal(content(b, &e), want) {
			t.Fatalf("seed %d: content differs", seed)
		}
		for i, s := range e.Sparse {
			if s.Len%blockSize != 0 && i != len(e.Sparse)-1 {
				t.Errorf("seed %d: segment %d of %d bytes", seed, i, s.Len)
			}
		}
		// ReadFrom lays it out in the same way.
		var buf bytes.Buffer
		w := NewWriter(&buf)
		if err := w.WriteHeader(&m.Entry); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(m.data))); err != nil || n != int64(len(m.data)) {
			t.Fatal(n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf.Bytes(), b) {
			t.Errorf("seed %d: ReadFrom and Write differ", seed)
		}
	}
}

func TestWriterData(t *testing.T) {
	w := NewWriter(io.Discard)
	e := &Entry{Name: "file", Type: TypeReg, Size: 5}
	if err := w.WriteHeader(e); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("123")); n != 3 || err != nil {
		t.Error(n, err)
	}
	if err := w.WriteHeader(e); !errors.Is(err, ErrSize) {
		t.Errorf("next header with data missing: %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrSize) || !strings.Contains(err.Error(), "2 bytes") {
		t.Errorf("close with data missing: %v", err)
	}
	if n, err := w.Write([]byte("456")); n != 2 || !errors.Is(err, ErrSize) {
		t.Error(n, err)
	}
	if err := w.WriteHeader(e); err != nil {
		t.Fatal(err)
	}
	if n, err := w.ReadFrom(strings.NewReader("123456")); n != 5 || !errors.Is(err, ErrSize) {
		t.Error(n, err)
	}
	if err := w.WriteHeader(e); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("disk on fire")
	if n, err := w.ReadFrom(io.MultiReader(strings.NewReader("12"), iotest.ErrReader(cause))); n != 2 || !errors.Is(err, cause) {
		t.Error(n, err)
	}
	if n, err := w.ReadFrom(strings.NewReader("345")); n != 3 || err != nil {
		t.Error(n, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.WriteHeader(e); err == nil {
		t.Error("header after close")
	}
}

func TestWriterRefuses(t *testing.T) {
	for what, e := range map[string]Entry{
		"no type":           {Name: "a"},
		"no name":           {Type: '0'},
		"NUL in name":       {Name: "a\x00", Type: '0'},
		"file with slash":   {Name: "a/", Type: '0'},
		"link to nothing":   {Name: "a", Type: '2'},
		"NUL in target":     {Name: "a", Type: '2', Linkname: "\x00"},
		"file type in mode": {Name: "a", Type: '0', Mode: 0o100644},
		"uid":               {Name: "a", Type: '0', UID: math.MaxUint32},
		"nanoseconds":       {Name: "a", Type: '0', MtimeNsec: 1e9},
		"size":              {Name: "a", Type: '0', Size: -1},
		"huge":              {Name: "a", Type: '0', Size: math.MaxInt64},
		"long":              {Name: strings.Repeat("a", MaxName+1), Type: '0'},
		"xattr name":        {Name: "a", Type: '0', Xattrs: []Xattr{{"", nil}}},
		"xattr order":       {Name: "a", Type: '0', Xattrs: []Xattr{{"b", nil}, {"a", nil}}},
		"xattr size":        {Name: "a", Type: '0', Xattrs: []Xattr{{"user.a", make([]byte, MaxHeader)}}},
		"segment order":     {Name: "a", Type: '0', Size: 10, Sparse: []Segment{{5, 1}, {1, 1}}},
		"segment overlap":   {Name: "a", Type: '0', Size: 10, Sparse: []Segment{{1, 5}, {2, 1}}},
		"segment outside":   {Name: "a", Type: '0', Size: 10, Sparse: []Segment{{1, 10}}},
		"segment overflow":  {Name: "a", Type: '0', Size: math.MaxInt64, Sparse: []Segment{{1, math.MaxInt64}}},
		"huge segment":      {Name: "a", Type: '0', Size: math.MaxInt64, Sparse: []Segment{{0, math.MaxInt64}}},
	} {
		var buf bytes.Buffer
		w := NewWriter(&buf)
		err := w.WriteHeader(&e)
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		// Nothing of it is in the stream.
		if err := w.WriteHeader(&Entry{Name: "b", Type: '0'}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := w.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if all, err := readAll(buf.Bytes()); err != nil || len(all) != 1 {
			t.Errorf("%s: then %d entries, %v", what, len(all), err)
		}
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestWriterFullDisk(t *testing.T) {
	cause := errors.New("no space left")
	w := NewWriter(failingWriter{cause})
	if err := w.WriteHeader(&Entry{Name: "a", Type: '0', Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(make([]byte, 1<<20))); !errors.Is(err, cause) {
		t.Error(err)
	}
	if err := w.Close(); err == nil {
		t.Error("close of a broken archive")
	}
}

func TestSplitName(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	for _, c := range []struct {
		in, prefix, name string
		ok               bool
	}{
		{a(100), "", a(100), true},
		{a(101), "", "", false},
		{"/" + a(100), "", "", false},
		{"b/" + a(100), "b", a(100), true},
		{a(155) + "/" + a(100), a(155), a(100), true},
		{a(156) + "/" + a(99), "", "", false},
		{a(100) + "/", "", "", false},
		{a(50) + "/" + a(50) + "/", a(50), a(50) + "/", true},
		{a(155) + "/" + a(99) + "/", a(155), a(99) + "/", true},
		{a(10) + "/" + a(10) + "/" + a(95), a(10) + "/" + a(10), a(95), true},
	} {
		prefix, name, ok := splitName(c.in)
		if prefix != c.prefix || name != c.name || ok != c.ok {
			t.Errorf("%q: %q, %q, %v", c.in, prefix, name, ok)
		}
	}
}
