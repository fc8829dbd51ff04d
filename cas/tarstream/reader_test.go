package tarstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// hand makes a header block by hand; edit changes fields before the sum is made.
func hand(name string, flag byte, size int64, edit func(b *block)) []byte {
	var b block
	copy(b.name(), name)
	putOctal(b.mode(), 0o644)
	putOctal(b.uid(), 0)
	putOctal(b.gid(), 0)
	putOctal(b.size(), size)
	putOctal(b.mtime(), 0)
	b[156] = flag
	copy(b.magic(), "ustar\x0000")
	if edit != nil {
		edit(&b)
	}
	b.setSum()
	return b[:]
}

// pad fills data to whole blocks.
func pad(data string) []byte {
	return append([]byte(data), make([]byte, roundUp(int64(len(data)))-int64(len(data)))...)
}

// ext makes an extended header with its payload.
func ext(flag byte, payload string) []byte {
	return append(hand("ext", flag, int64(len(payload)), nil), pad(payload)...)
}

// rec makes a PAX record.
func rec(key, value string) string {
	var p paxBuilder
	p.add(key, []byte(value))
	return string(p.records())
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	plain   = hand("plain", '0', 0, nil)
	endMark = make([]byte, 2*blockSize)
)

func gnu(b *block) { copy(b.magic(), "ustar  \x00") }

func TestReaderByHand(t *testing.T) {
	reg := Entry{Name: "plain", Type: TypeReg, Mode: 0o644, DataOff: 512}
	with := func(edit func(e *Entry)) Entry {
		e := reg
		edit(&e)
		return e
	}
	for _, c := range []struct {
		what string
		in   []byte
		want Entry
	}{
		{"plain", plain, reg},
		{"v7", hand("plain", 0, 0, func(b *block) { clear(b[257:]) }), reg},
		{"v7 directory", hand("dir/", 0, 0, func(b *block) { clear(b[257:]) }), with(func(e *Entry) { e.Name, e.Type = "dir/", TypeDir })},
		{"v7 with rubbish behind the link name", hand("plain", '0', 0, func(b *block) {
			for i := range b[257:] {
				b[257+i] = 'x'
			}
		}), reg},
		{"contiguous file", hand("plain", '7', 0, nil), reg},
		{"a vendor's type", hand("plain", 'Q', 0, nil), reg},
		{"file type in mode", hand("plain", '0', 0, func(b *block) { copy(b.mode(), "0104755\x00") }), with(func(e *Entry) { e.Mode = 0o4755 })},
		{"fields with spaces", hand("plain", '0', 0, func(b *block) {
			copy(b.uid(), "    17 \x00")
			copy(b.gid(), "  21\x00\x00\x00\x00")
			copy(b.mtime(), "         17  ")
		}), with(func(e *Entry) { e.UID, e.GID, e.MtimeSec = 15, 17, 15 })},
		{"empty fields", hand("plain", '0', 0, func(b *block) {
			clear(b.uid())
			copy(b.gid(), "        ")
			clear(b.mtime())
		}), reg},
		{"base 256", hand("plain", '0', 0, func(b *block) {
			copy(b.uid(), "\x80\x00\x00\x00\xff\xff\xff\xfe")
			copy(b.mtime(), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")
		}), with(func(e *Entry) { e.UID, e.MtimeSec = math.MaxUint32-1, -2 })},
		{"signed checksum", func() []byte {
			b := block(hand("plain\xff\xfe", '0', 0, nil))
			putOctal(b.chksum()[:7], b.sum()-512)
			return b[:]
		}(), with(func(e *Entry) { e.Name = "plain\xff\xfe" })},
		{"links have no data", hand("plain", '1', 100, func(b *block) { copy(b.linkname(), "to") }), with(func(e *Entry) { e.Type, e.Linkname = '1', "to" })},
		{"prefix", hand("plain", '0', 0, func(b *block) { copy(b.prefix(), "a/b") }), with(func(e *Entry) { e.Name = "a/b/plain" })},
		{"GNU has times there", hand("plain", '0', 0, func(b *block) {
			gnu(b)
			copy(b.prefix(), "00000000001\x0000000000001\x00")
		}), reg},
		{"a prefix of old Go in a GNU header", hand("plain", '0', 0, func(b *block) {
			gnu(b)
			copy(b.prefix(), "a/b")
		}), with(func(e *Entry) { e.Name = "a/b/plain" })},
		{"star", hand("plain", '0', 0, func(b *block) {
			copy(b.prefix(), strings.Repeat("p", 131)+"00000000001\x0000000000001\x00")
			copy(b[508:], "tar\x00")
		}), with(func(e *Entry) { e.Name = strings.Repeat("p", 131) + "/plain" })},
		{"name without NUL", hand(strings.Repeat("n", 100), '0', 0, nil), with(func(e *Entry) { e.Name = strings.Repeat("n", 100) })},
		{
			"GNU long name and link", join(ext('L', "long\x00rubbish"), ext('K', "target"), hand("short", '2', 0, gnu)),
			with(func(e *Entry) { e.Name, e.Linkname, e.Type, e.DataOff = "long", "target", '2', 5*512 }),
		},
		{"volume label", join(ext('V', ""), plain), with(func(e *Entry) { e.HeaderOff, e.DataOff = 512, 1024 })},
		{"old long names", join(ext('N', "x"), plain), with(func(e *Entry) { e.HeaderOff, e.DataOff = 1024, 1536 })},
		{
			"PAX overrides", join(ext('x', rec("path", "p/é")+rec("linkpath", "l")+rec("uid", "4000000000")+rec("gid", "7")+rec("mtime", "-1.5")+rec("comment", "")),
				hand("x", '2', 0, nil)),
			with(func(e *Entry) {
				e.Name, e.Linkname, e.Type, e.UID, e.GID = "p/é", "l", '2', 4000000000, 7
				e.MtimeSec, e.MtimeNsec, e.DataOff = -2, 500000000, 3*512
			}),
		},
		{"of two local headers the last", join(ext('x', rec("uid", "1")), ext('x', rec("gid", "2")), plain), with(func(e *Entry) { e.GID, e.DataOff = 2, 5*512 })},
		{"of two records the last", join(ext('x', rec("uid", "1")+rec("uid", "2")), plain), with(func(e *Entry) { e.UID, e.DataOff = 2, 3*512 })},
		{
			"global", join(ext('g', rec("uid", "1")+rec("gid", "2")+rec("mtime", "5")), ext('g', rec("mtime", "")), ext('x', rec("gid", "")), plain),
			with(func(e *Entry) { e.UID, e.HeaderOff, e.DataOff = 1, 4*512, 7*512 }),
		},
		{
			"global between", join(ext('x', rec("uid", "1")), ext('g', rec("gid", "2")), plain),
			with(func(e *Entry) { e.UID, e.GID, e.DataOff = 1, 2, 5*512 }),
		},
		{
			"attributes", join(ext('g', rec("SCHILY.xattr.user.g", "G")+rec("SCHILY.xattr.user.h", "H")+rec("SCHILY.xattr.user.i", "I")+rec("SCHILY.xattr.user.i", "")),
				ext('x', rec("SCHILY.xattr.user.h", "")+rec("SCHILY.xattr.user.b", "\n\x00=\n")+rec("SCHILY.xattr.user.a%3D%25", "1")+rec("SCHILY.xattr.user.e", "")+
					rec("SCHILY.xattr.user.c", "1")+rec("LIBARCHIVE.xattr.user.c%20d", "YWI")+rec("LIBARCHIVE.xattr.user.c", "Yg==")+rec("RHT.security.selinux", "ctx")), plain),
			with(func(e *Entry) {
				e.HeaderOff, e.DataOff = 1024, 1024+1024+512
				e.Xattrs = []Xattr{
					{"security.selinux", []byte("ctx\x00")},
					{"user.a=%", []byte("1")},
					{"user.b", []byte("\n\x00=\n")},
					{"user.c", []byte("b")},
					{"user.c d", []byte("ab")},
					{"user.e", []byte{}},
					{"user.g", []byte("G")},
				}
			}),
		},
		{
			"a binary ACL wins", join(ext('x', rec("SCHILY.xattr.system.posix_acl_access", "binary")+rec("SCHILY.acl.access", "user::rwx,group::r-x,mask::r-x,other::r--")), plain),
			with(func(e *Entry) {
				e.Xattrs = []Xattr{{xattrACLAccess, []byte("binary")}}
				e.DataOff = 3 * 512
			}),
		},
		{"device number", join(ext('x', rec("SCHILY.devmajor", "5")+rec("SCHILY.devminor", "3000000")), hand("plain", '3', 0, nil)), with(func(e *Entry) {
			e.Type, e.Devmajor, e.Devminor, e.DataOff = '3', 5, 3000000, 3*512
		})},
	} {
		all, err := readAll(join(c.in, endMark))
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %d entries, %v", c.what, len(all), err)
			continue
		}
		if all[0].Xattrs == nil {
			all[0].Xattrs = c.want.Xattrs[:0]
		}
		if !reflect.DeepEqual(all[0], c.want) {
			t.Errorf("%s\n have %+v\n want %+v", c.what, all[0], c.want)
		}
	}
}

func TestReaderEnd(t *testing.T) {
	zero := make([]byte, blockSize)
	for what, c := range map[string]struct {
		in      []byte
		entries int
	}{
		"end mark":             {join(plain, endMark), 1},
		"no end mark":          {join(plain, plain), 2},
		"one zero block":       {join(plain, zero), 1},
		"empty archive":        {endMark, 0},
		"one zero block only":  {zero, 0},
		"something behind it":  {join(plain, endMark, []byte("rubbish")), 1},
		"another archive":      {join(plain, endMark, plain, endMark), 1},
		"global header only":   {ext('g', rec("comment", "x")), 0},
		"trailing global":      {join(plain, ext('g', rec("comment", "x")), endMark), 1},
		"trailing volume name": {join(plain, hand("v", 'V', 0, nil)), 1},
	} {
		all, err := readAll(c.in)
		if err != nil || len(all) != c.entries {
			t.Errorf("%s: %d entries, %v", what, len(all), err)
		}
	}
	src := newSource(join(plain, endMark, []byte("rest")))
	r := NewReader(src)
	for range 4 { // one entry, then the end, again and again
		_, _ = r.Next()
	}
	if r.Offset() != 3*blockSize {
		t.Errorf("offset %d at the end", r.Offset())
	}
	if rest, _ := io.ReadAll(src); string(rest) != "rest" {
		t.Errorf("%q is left for the caller", rest)
	}
}

func TestReaderErrors(t *testing.T) {
	sum := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[0]++
		return b
	}
	field := func(at int, s string) []byte {
		return hand("plain", '0', 0, func(b *block) { copy(b[at:], s) })
	}
	x := func(records string) []byte { return join(ext('x', records), plain) }
	sparse := func(records string) []byte {
		return join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.minor", "0")+records), hand("f", '0', 1024, nil), pad("1\n0\n512\n"), pad("x"))
	}
	for what, c := range map[string]struct {
		in   []byte
		err  error
		off  int64
		name string
	}{
		"empty":                {nil, ErrHeader, 0, ""},
		"short":                {[]byte("hello"), ErrHeader, 0, ""},
		"no tar":               {bytes.Repeat([]byte("text"), 1000), ErrHeader, 0, ""},
		"checksum":             {join(plain, sum(plain)), ErrHeader, 512, ""},
		"no checksum":          {func() []byte { b := bytes.Clone(plain); copy(b[148:], "zzzzzzzz"); return b }(), ErrHeader, 0, ""},
		"zero block inside":    {join(plain, make([]byte, 512), plain), ErrHeader, 512, "plain"},
		"end behind PAX":       {join(plain, ext('x', rec("path", "p")), endMark), ErrHeader, 512, "p"},
		"stream ends there":    {join(plain, ext('x', rec("path", "p"))), ErrTruncated, 512, "p"},
		"in the header":        {join(plain, plain[:100]), ErrTruncated, 512, ""},
		"in the data":          {join(hand("f", '0', 600, nil), make([]byte, 512)), ErrTruncated, 0, "f"},
		"in the padding":       {join(hand("f", '0', 600, nil), make([]byte, 600)), ErrTruncated, 0, "f"},
		"in the PAX header":    {ext('x', rec("path", "p"))[:600], ErrTruncated, 0, "ext"},
		"in the long name":     {ext('L', "name")[:600], ErrTruncated, 0, "ext"},
		"in the end mark":      {join(plain, make([]byte, 600)), ErrTruncated, 512, ""},
		"mode":                 {field(100, "rw-r--r-"), ErrHeader, 0, "plain"},
		"uid":                  {field(108, "00x"), ErrHeader, 0, "plain"},
		"uid -1":               {field(108, "\xff\xff\xff\xff\xff\xff\xff\xff"), ErrHeader, 0, "plain"},
		"uid 2^32-1":           {field(108, "\x80\x00\x00\x00\xff\xff\xff\xff"), ErrHeader, 0, "plain"},
		"gid 2^32":             {field(116, "\x80\x00\x00\x01\x00\x00\x00\x00"), ErrHeader, 0, "plain"},
		"size":                 {field(124, "9"), ErrHeader, 0, "plain"},
		"size -1":              {field(124, strings.Repeat("\xff", 12)), ErrHeader, 0, "plain"},
		"size 2^63-1":          {field(124, "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), ErrHeader, 0, "plain"},
		"size 2^64":            {field(124, "\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), ErrHeader, 0, "plain"},
		"mtime":                {field(136, "x"), ErrHeader, 0, "plain"},
		"multi-volume":         {hand("f", 'M', 0, nil), ErrUnsupported, 0, "f"},
		"unknown type":         {hand("f", '9', 0, nil), ErrUnsupported, 0, "f"},
		"sparse without GNU":   {hand("f", 'S', 0, nil), ErrUnsupported, 0, "f"},
		"PAX header too long":  {hand("x", 'x', MaxHeader+1, nil), ErrTooLong, 0, "x"},
		"long name too long":   {hand("x", 'L', 1<<33-1, nil), ErrTooLong, 0, "x"},
		"name too long":        {ext('L', strings.Repeat("n", MaxName+1)), ErrTooLong, 0, "ext"},
		"PAX name too long":    {x(rec("path", strings.Repeat("n", MaxName+1))), ErrTooLong, 0, "ext"},
		"PAX NUL in name":      {x(rec("path", "a\x00b")), ErrHeader, 0, "ext"},
		"PAX length 0":         {x("0 a=b\n"), ErrHeader, 0, "ext"},
		"PAX length too great": {x("7 a=b\n"), ErrHeader, 0, "ext"},
		"PAX length too small": {x("5 a=b\n"), ErrHeader, 0, "ext"},
		"PAX length huge":      {x("99999999999999999999 a=b\n"), ErrHeader, 0, "ext"},
		"PAX length negative":  {x("-6 a=b\n"), ErrHeader, 0, "ext"},
		"PAX no length":        {x(" a=b\n"), ErrHeader, 0, "ext"},
		"PAX no key":           {x("5 =b\n"), ErrHeader, 0, "ext"},
		"PAX no value":         {x("5 ab\n"), ErrHeader, 0, "ext"},
		"PAX no newline":       {x("6 a=bc"), ErrHeader, 0, "ext"},
		"PAX uid":              {x(rec("uid", "-1")), ErrHeader, 0, "ext"},
		"PAX gid":              {x(rec("gid", "4294967295")), ErrHeader, 0, "ext"},
		"PAX size":             {x(rec("size", "9223372036854775808")), ErrHeader, 0, "ext"},
		"PAX size too great":   {x(rec("size", "9223372036854775807")), ErrHeader, 0, "plain"},
		"PAX mtime":            {x(rec("mtime", "1.x")), ErrHeader, 0, "ext"},
		"PAX device":           {x(rec("SCHILY.devmajor", "4294967296")), ErrHeader, 0, "ext"},
		"PAX base64":           {x(rec("LIBARCHIVE.xattr.user.a", "!")), ErrHeader, 0, "ext"},
		"PAX URL encoding":     {x(rec("LIBARCHIVE.xattr.user.%z", "")), ErrHeader, 0, "ext"},
		"PAX attribute's name": {x(rec("SCHILY.xattr.", "a")), ErrHeader, 0, "ext"},
		"PAX NUL in attribute": {x(rec("LIBARCHIVE.xattr.user.%00", "")), ErrHeader, 0, "ext"},
		"PAX ACL":              {x(rec("SCHILY.acl.access", "user::rwx")), ErrHeader, 0, "plain"},
		"global attributes": {
			join(ext('g', rec("SCHILY.xattr.a", strings.Repeat("x", MaxGlobal-100))), ext('g', rec("SCHILY.xattr.b", strings.Repeat("x", 100)))),
			ErrTooLong, MaxGlobal + 512, "ext",
		},
		"global ACL":            {ext('g', rec("SCHILY.acl.access", strings.Repeat("x", MaxGlobal+1))), ErrTooLong, 0, "ext"},
		"sparse size missing":   {sparse(""), ErrSparse, 0, "f"},
		"sparse size too small": {sparse(rec("GNU.sparse.realsize", "511")), ErrSparse, 0, "f"},
		"sparse version":        {sparse(rec("GNU.sparse.major", "2")), ErrUnsupported, 0, "f"},
		"sparse 0.1 odd":        {x(rec("GNU.sparse.map", "0,1,2") + rec("GNU.sparse.size", "5")), ErrSparse, 0, "ext"},
		"sparse 0.1 empty":      {x(rec("GNU.sparse.map", "0,") + rec("GNU.sparse.size", "5")), ErrSparse, 0, "ext"},
		"sparse 0.1 count":      {x(rec("GNU.sparse.map", "0,0") + rec("GNU.sparse.size", "5") + rec("GNU.sparse.numblocks", "2")), ErrSparse, 0, "plain"},
		"sparse 0.1 data":       {x(rec("GNU.sparse.map", "0,5") + rec("GNU.sparse.size", "5")), ErrSparse, 0, "plain"},
		"sparse 0.1 overflow":   {x(rec("GNU.sparse.map", "9223372036854775807,1") + rec("GNU.sparse.size", "9223372036854775807")), ErrSparse, 0, "plain"},
		"sparse 0.0 order":      {x(rec("GNU.sparse.numbytes", "0") + rec("GNU.sparse.size", "5")), ErrSparse, 0, "ext"},
		"sparse 0.0 offsets":    {x(rec("GNU.sparse.offset", "0") + rec("GNU.sparse.offset", "0")), ErrSparse, 0, "ext"},
		"sparse 0.0 half":       {x(rec("GNU.sparse.offset", "0") + rec("GNU.sparse.size", "5")), ErrSparse, 0, "plain"},
	} {
		_, err := readAll(c.in)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", what, err, c.err)
			continue
		}
		if e.Offset != c.off || e.Name != c.name {
			t.Errorf("%s: at %d, %q; want %d, %q (%v)", what, e.Offset, e.Name, c.off, c.name, err)
		}
	}
	if _, err := readAll(nil); !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), "empty") {
		t.Error(err)
	}
}

// A stream cut anywhere is an error, except between two entries, where it reads
// like an archive without an end mark.
func TestReaderTruncated(t *testing.T) {
	ms := newGenerator(3, true).members(40)
	whole := write(t, ms)
	all, err := readAll(whole)
	if err != nil {
		t.Fatal(err)
	}
	clean := map[int]bool{len(whole): true, len(whole) - blockSize: true, len(whole) - 2*blockSize: true}
	for _, e := range all {
		clean[int(e.HeaderOff)] = e.HeaderOff > 0
	}
	for cut := 0; cut <= len(whole); cut += blockSize {
		for _, cut := range []int{cut, cut + 1, cut + blockSize - 1} {
			if cut > len(whole) {
				continue
			}
			got, err := readAll(whole[:cut])
			if clean[cut] {
				if err != nil {
					t.Errorf("cut at %d: %v", cut, err)
				}
				continue
			}
			if !errors.Is(err, ErrTruncated) {
				t.Errorf("cut at %d: %v", cut, err)
			}
			if len(got) > 0 && !reflect.DeepEqual(got, all[:len(got)]) {
				t.Errorf("cut at %d: entries differ", cut)
			}
			var e *Error
			if errors.As(err, &e) && len(got) > 0 && e.Offset != all[len(got)-1].HeaderOff && (len(got) == len(all) || e.Offset < all[len(got)].HeaderOff) &&
				cut < len(whole)-2*blockSize {
				t.Errorf("cut at %d behind %d entries: reported at %d", cut, len(got), e.Offset)
			}
		}
	}
}

// A Source whose errors are not the end of the stream passes them on.
func TestReaderSourceError(t *testing.T) {
	cause := errors.New("connection lost")
	src := struct {
		io.Reader
		skipper
	}{io.MultiReader(bytes.NewReader(hand("f", '0', 600, nil)), iotest.ErrReader(cause)), func(int64) error { return cause }}
	r := NewReader(src)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := r.Next()
		if !errors.Is(err, cause) || errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), `"f" at offset 0`) {
			t.Error(err)
		}
	}
	src.Reader = iotest.ErrReader(cause)
	if _, err := NewReader(src).Next(); !errors.Is(err, cause) || errors.Is(err, ErrHeader) {
		t.Error(err)
	}
}

type skipper func(int64) error

func (s skipper) Skip(n int64) error { return s(n) }

// segment makes an entry of an old sparse header.
func segment(off, n int64) []byte {
	b := make([]byte, 24)
	putOctal(b[:12], off)
	putOctal(b[12:], n)
	return b
}

func TestOldSparse(t *testing.T) {
	data := make([]byte, 1024)
	extension := make([]byte, blockSize)
	copy(extension, segment(8192, 512))
	ends := make([]byte, blockSize)
	want := []Segment{{1024, 512}, {8192, 512}}
	for what, in := range map[string][]byte{
		"GNU": join(hand("f", 'S', 1024, func(b *block) {
			gnu(b)
			copy(b[386:], segment(1024, 512))
			b[482] = 1
			putOctal(b[483:495], 10000)
		}), extension, data),
		"GNU with an empty extension": join(hand("f", 'S', 1024, func(b *block) {
			gnu(b)
			copy(b[386:], segment(1024, 512))
			copy(b[410:], segment(8192, 512))
			copy(b[434:], segment(10000, 0))
			b[482] = 1
			putOctal(b[483:495], 10000)
		}), ends, data),
		"old star": join(hand("f", 'S', 1024, func(b *block) {
			copy(b[356:], segment(1024, 512))
			b[355] = 1
			putOctal(b[452:464], 10000)
			copy(b[508:], "tar\x00")
		}), extension, data),
		"star": join(hand("f", 'S', 1024, func(b *block) {
			b[345] = 0
			putOctal(b[452:464], 10000)
			copy(b[508:], "tar\x00")
		}), func() []byte {
			b := make([]byte, blockSize)
			copy(b, join(segment(1024, 512), segment(8192, 512)))
			return b
		}(), data),
		"PAX 0.0": join(ext('x', rec("GNU.sparse.size", "10000")+rec("GNU.sparse.numblocks", "2")+rec("GNU.sparse.offset", "1024")+rec("GNU.sparse.numbytes", "512")+
			rec("GNU.sparse.offset", "8192")+rec("GNU.sparse.numbytes", "512")), hand("f", '0', 1024, nil), data),
		"PAX 0.1": join(ext('x', rec("GNU.sparse.major", "0")+rec("GNU.sparse.minor", "1")+rec("GNU.sparse.realsize", "10000")+rec("GNU.sparse.map", "1024,512,8192,512")+
			rec("GNU.sparse.name", "f")), hand("x", '0', 1024, nil), data),
	} {
		all, err := readAll(join(in, plain, endMark))
		if err != nil || len(all) != 2 {
			t.Errorf("%s: %d entries, %v", what, len(all), err)
			continue
		}
		e := all[0]
		if e.Name != "f" || e.Type != TypeReg || e.Size != 10000 || !reflect.DeepEqual(e.Sparse, want) || e.DataLen != 1024 || int(e.DataOff) != len(in)-1024 {
			t.Errorf("%s: %+v", what, e)
		}
		for _, cut := range []int{1, 2} {
			if _, err := readAll(in[:blockSize*cut+100]); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: cut: %v", what, err)
			}
		}
	}
}

// The map of version 1.0 may not make the reader take more than there is.
func TestSparseMapLimits(t *testing.T) {
	archive := func(size int64, m string) []byte {
		return join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.minor", "0")+rec("GNU.sparse.realsize", "100000")), hand("f", '0', size, nil), pad(m))
	}
	for _, c := range []struct {
		size int64
		m    string
		err  error
	}{
		{512, "0\n", nil},
		{512, "1\n0\n0\n", nil},
		{511, "0\n", ErrSparse},
		{0, "0\n", ErrSparse},
		{512, "\n", ErrSparse},
		{512, "x\n", ErrSparse},
		{512, "-1\n", ErrSparse},
		{512, "1\n0\n", ErrSparse},
		{512, "99999999999999999999\n", ErrSparse},
		{512, strings.Repeat("0", 512), ErrSparse},
		{512, fmt.Sprint(MaxSegments+1, "\n"), ErrTooLong},
		{1 << 30, fmt.Sprint(MaxSegments, "\n"), ErrSparse},
		{512, strconv.Itoa(1) + "\n9223372036854775807\n1\n", ErrSparse},
		{512, "2\n5\n0\n4\n0\n", ErrSparse},
	} {
		_, err := readAll(archive(c.size, c.m))
		if !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("size %d, map %.30q: %v", c.size, c.m, err)
		}
	}
}
