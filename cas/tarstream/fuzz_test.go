package tarstream

import (
	"archive/tar"
	"bytes"
	"io"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
)

// FuzzReader: no input makes the Reader panic, allocate much more than it reads,
// or return an entry that breaks what Entry promises.
func FuzzReader(f *testing.F) {
	f.Add(join(plain, endMark))
	f.Add(join(ext('L', "long\x00"), ext('K', "target"), hand("short", '2', 0, gnu), endMark))
	f.Add(join(ext('g', rec("uid", "1")+rec("SCHILY.xattr.user.g", "G")), ext('x', rec("uid", "")+rec("mtime", "-1.5")), plain, endMark))
	f.Add(join(ext('x', rec("SCHILY.acl.access", "user::rwx,user:1:r--,group::r-x,mask::r-x,other::r--")+rec("LIBARCHIVE.xattr.user.a", "YWI")), plain))
	f.Add(join(ext('x', rec("GNU.sparse.major", "0")+rec("GNU.sparse.minor", "1")+rec("GNU.sparse.size", "10000")+rec("GNU.sparse.map", "1024,512,8192,512")),
		hand("f", '0', 1024, nil), make([]byte, 1024), endMark))
	f.Add(join(hand("f", 'S', 512, func(b *block) {
		gnu(b)
		copy(b[386:], segment(1024, 512))
		b[482] = 1
		putOctal(b[483:495], 10000)
	}), make([]byte, 1024), endMark))
	f.Add(join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.minor", "0")+rec("GNU.sparse.realsize", "9999")), hand("f", '0', 1024, nil), pad("1\n0\n512\n"), pad("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = fixSums(b)
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		r := NewReader(newSource(b))
		end, off := int64(0), int64(0)
		for {
			e, err := r.Next()
			if r.Offset() < off || r.Offset() > int64(len(b)) {
				t.Fatalf("offset %d behind %d of %d bytes", r.Offset(), off, len(b))
			}
			off = r.Offset()
			if err != nil {
				if _, again := r.Next(); again != err {
					t.Fatalf("%v, then %v", err, again)
				}
				break
			}
			if e.HeaderOff < end || e.DataOff != off {
				t.Fatalf("header at %d, behind %d, data at %d of %d", e.HeaderOff, end, e.DataOff, off)
			}
			end = e.DataOff + e.DataLen
			checkInvariants(t, e)
		}
		goruntime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20+uint64(len(b))*200 {
			t.Errorf("%d bytes allocated for an input of %d", n, len(b))
		}
	})
}

// fixSums makes the checksums right of blocks that look like headers, so that the
// fuzzer gets past them.
func fixSums(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b; len(rest) >= blockSize; rest = rest[blockSize:] {
		if blk := (*block)(rest); string(blk[257:262]) == "ustar" {
			blk.setSum()
		}
	}
	return b
}

func checkInvariants(t *testing.T, e *Entry) {
	t.Helper()
	switch {
	case e.Type < TypeReg || e.Type > TypeFifo,
		e.Mode > 0o7777, e.MtimeNsec >= 1e9, e.UID == 1<<32-1, e.GID == 1<<32-1,
		e.Size < 0, e.DataLen < 0, e.DataOff < 0, e.DataOff+e.DataLen < 0, e.DataOff%blockSize != 0, e.HeaderOff%blockSize != 0,
		e.Type != TypeReg && (e.Size != 0 || e.DataLen != 0 || e.Sparse != nil),
		e.Sparse == nil && e.DataLen != e.Size,
		len(e.Name) > MaxName, len(e.Linkname) > MaxName, strings.Contains(e.Name+e.Linkname, "\x00"):
		t.Fatalf("%+v", e)
	}
	end, total := int64(0), int64(0)
	for _, s := range e.Sparse {
		if s.Off < end || s.Len <= 0 || s.Off+s.Len > e.Size || s.Off+s.Len < 0 {
			t.Fatalf("segments %v in %d bytes", e.Sparse, e.Size)
		}
		end = s.Off + s.Len
		total += s.Len
	}
	if e.Sparse != nil && total != e.DataLen {
		t.Fatalf("segments %v for %d bytes", e.Sparse, e.DataLen)
	}
	for i, x := range e.Xattrs {
		if x.Value == nil || x.Name == "" || strings.Contains(x.Name, "\x00") || i > 0 && e.Xattrs[i-1].Name >= x.Name {
			t.Fatalf("attributes %q", e.Xattrs)
		}
	}
}

// FuzzRoundTrip: what the Writer takes, the Reader gives back, and archive/tar
// reads the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add("etc/passwd", "", byte('0'), uint32(0o644), uint32(0), uint32(0), int64(1700000000), uint32(0), uint32(0), "", []byte(nil), []byte("data"), []byte(nil), int64(0))
	f.Add("dir/", "", byte('5'), uint32(0o1777), uint32(1<<21), uint32(1<<31), int64(-2), uint32(5e8), uint32(0), "user.a=b%3D", []byte("\n\x00"), []byte(nil), []byte(nil), int64(0))
	f.Add(strings.Repeat("n/", 80)+"\xff", "", byte('0'), uint32(0), uint32(0), uint32(0), int64(1<<33), uint32(1), uint32(0), "", []byte(nil), []byte(nil), []byte{1, 2, 0, 3}, int64(9000))
	f.Add("link", strings.Repeat("t", 101), byte('2'), uint32(0o777), uint32(0), uint32(0), int64(0), uint32(0), uint32(0), xattrACLAccess, []byte("x"), []byte(nil), []byte(nil), int64(0))
	f.Add("null", "", byte('3'), uint32(0o666), uint32(0), uint32(0), int64(0), uint32(0), uint32(1<<31+3), "", []byte(nil), []byte(nil), []byte(nil), int64(0))
	f.Fuzz(func(t *testing.T, name, linkname string, typ byte, mode, uid, gid uint32, sec int64, nsec, dev uint32, xname string, xvalue, data, segments []byte, hole int64) {
		m := member{Entry: Entry{Name: name, Type: typ, Mode: mode, UID: uid, GID: gid, MtimeSec: sec, MtimeNsec: nsec}}
		switch typ {
		case TypeLink, TypeSymlink:
			m.Linkname = linkname
		case TypeChar, TypeBlock:
			m.Devmajor, m.Devminor = dev, dev>>7
		case TypeReg:
			m.data, m.Size = data, int64(len(data))
			if len(segments) > 0 {
				m.spread(segments, hole)
			}
		}
		if xname != "" {
			m.Xattrs = []Xattr{{xname, cloneValue(xvalue)}}
		}
		w := NewWriter(io.Discard)
		if w.WriteHeader(&m.Entry) != nil {
			return
		}
		b := write(t, []member{m})
		if len(b)%blockSize != 0 {
			t.Fatalf("archive of %d bytes", len(b))
		}
		if xname == xattrACLAccess {
			m.Mode = modeOfACL(xvalue, m.Mode)
		}
		checkRead(t, b, []member{m})
		tr := tar.NewReader(bytes.NewReader(b))
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("archive/tar: %v", err)
		}
		if h.Name != m.Name || h.Linkname != m.Linkname || h.Size != m.Size || h.ModTime.Unix() != m.MtimeSec || int64(h.Uid) != int64(m.UID) {
			t.Errorf("archive/tar has %+v, wrote %+v", h, m.Entry)
		}
	})
}

// spread makes a sparse file of whole blocks of the data: lengths of segment and
// hole are taken from sizes in turn.
func (m *member) spread(sizes []byte, hole int64) {
	m.Sparse, m.Size = []Segment{}, 0
	need := int64(0)
	for pair := range slices.Chunk(sizes, 2) {
		m.Size += int64(pair[0]) * 100
		if n := int64(pair[len(pair)-1]) % 8 * blockSize; n > 0 {
			m.Sparse = append(m.Sparse, Segment{m.Size, n})
			m.Size += n
			need += n
		}
	}
	m.Size += max(hole, 0) % (1 << 40)
	m.data = append(slices.Clone(m.data), make([]byte, max(0, need-int64(len(m.data))))...)[:need]
}
