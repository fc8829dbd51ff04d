package tarstream

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// sameAsStdlib checks what this package reads against archive/tar. Global
// headers are left out: archive/tar does not apply them.
func sameAsStdlib(t *testing.T, b []byte) []Entry {
	t.Helper()
	got, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(bytes.NewReader(b))
	for i := 0; ; i++ {
		h, err := tr.Next()
		if err == io.EOF {
			if i != len(got) {
				t.Fatalf("%d entries, archive/tar has %d", len(got), i)
			}
			return got
		}
		if err != nil {
			t.Fatalf("archive/tar: %v", err)
		}
		if i >= len(got) {
			t.Fatalf("%d entries, archive/tar has more, next is %q", len(got), h.Name)
		}
		e := &got[i]
		if want, have := describeStdlib(h), describe(e); want != have {
			t.Errorf("entry %d\n have %s\n want %s", i, have, want)
		}
		if e.Type != TypeReg {
			continue
		}
		want, err := io.ReadAll(tr)
		if err != nil {
			t.Fatalf("archive/tar: %s: %v", h.Name, err)
		}
		if !bytes.Equal(want, content(b, e)) {
			t.Errorf("%s: content differs", e.Name)
		}
	}
}

func describe(e *Entry) string {
	size := e.Size
	s := fmt.Sprintf("%q -> %q %c %o %d:%d %d dev %d,%d time %d.%09d", e.Name, e.Linkname, e.Type, e.Mode, e.UID, e.GID, size,
		e.Devmajor, e.Devminor, e.MtimeSec, e.MtimeNsec)
	for _, x := range e.Xattrs {
		s += fmt.Sprintf(" %s=%q", x.Name, x.Value)
	}
	return s
}

func describeStdlib(h *tar.Header) string {
	e := Entry{
		Name: h.Name, Linkname: h.Linkname, Type: h.Typeflag, Mode: uint32(h.Mode) & 0o7777,
		UID: uint32(h.Uid), GID: uint32(h.Gid), MtimeSec: h.ModTime.Unix(), MtimeNsec: uint32(h.ModTime.Nanosecond()),
	}
	switch e.Type {
	case tar.TypeGNUSparse, tar.TypeCont, '0':
		e.Type = TypeReg
		e.Size = h.Size
	case TypeChar, TypeBlock:
		e.Devmajor, e.Devminor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			e.Xattrs = append(e.Xattrs, Xattr{name, []byte(h.PAXRecords[k])})
		}
	}
	return describe(&e)
}

func TestStdlibWriter(t *testing.T) {
	long := strings.Repeat("directory/", 30)
	headers := []*tar.Header{
		{Name: "./", Typeflag: '5', Mode: 0o755},
		{Name: "etc/passwd", Typeflag: '0', Mode: 0o4755, Size: 700, Uid: 1000, Gid: 1<<21 - 1},
		{Name: "link", Linkname: "etc/passwd", Typeflag: '2', Mode: 0o777},
		{Name: "hard", Linkname: "etc/passwd", Typeflag: '1', Mode: 0o644},
		{Name: "null", Typeflag: '3', Devmajor: 1, Devminor: 3},
		{Name: "sda", Typeflag: '4', Devmajor: 8, Devminor: 0},
		{Name: "fifo", Typeflag: '6'},
		{Name: strings.Repeat("p/", 60) + "short", Typeflag: '0', Size: 512},
		{Name: "time", Typeflag: '0', ModTime: time.Unix(1700000000, 123456789), Format: tar.FormatPAX},
		{Name: "before", Typeflag: '0', ModTime: time.Unix(-2, 5e8), Format: tar.FormatPAX},
		{Name: "gnubefore", Typeflag: '0', ModTime: time.Unix(-77777, 0), Format: tar.FormatGNU},
		{Name: long + "file", Typeflag: '0', Size: 3, Format: tar.FormatPAX},
		{Name: long + "gnufile", Typeflag: '0', Size: 3, Format: tar.FormatGNU},
		{Name: long + "gnulink", Linkname: long + "target", Typeflag: '2', Format: tar.FormatGNU},
		{Name: long + "paxlink", Linkname: long + "target", Typeflag: '2', Format: tar.FormatPAX},
		{Name: "bigid", Uid: 4294967294, Gid: 1 << 30, Typeflag: '0', Format: tar.FormatGNU},
		{Name: "bigidpax", Uid: 4294967294, Gid: 1 << 30, Typeflag: '0', Format: tar.FormatPAX},
		{Name: "not\xffutf8", Typeflag: '0', Format: tar.FormatGNU},
		{Name: "xattrs", Typeflag: '0', Size: 1, PAXRecords: map[string]string{
			"SCHILY.xattr.user.binary": "a\nb\x00c=d\n12 path=x\n", "SCHILY.xattr.user.empty": "",
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00", "SCHILY.xattr.user.=": "=",
		}},
		{Name: "last", Typeflag: '0', Size: 1},
	}
	// archive/tar refuses this key when writing.
	delete(headers[len(headers)-2].PAXRecords, "SCHILY.xattr.user.=")
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for i, h := range headers {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := tw.Write(bytes.Repeat([]byte{byte('a' + i)}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if got := sameAsStdlib(t, buf.Bytes()); len(got) != len(headers) {
		t.Errorf("%d entries, want %d", len(got), len(headers))
	}
}
