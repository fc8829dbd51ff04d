package tarstream

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Greatest values of ustar's fields, which hold octal digits and a NUL.
const (
	maxOctal7  = 1<<21 - 1
	maxOctal11 = 1<<33 - 1
)

func (w *Writer) fillNames(e *Entry, sparse bool) {
	b := &w.blk
	binary := false
	switch prefix, name, ok := splitName(e.Name); {
	case sparse:
		// The true name has a record of its own, so that a reader which does not
		// know sparse files does not take this for the file.
		copyName(b.name(), "GNUSparseFile.0/"+baseName(e.Name))
		w.pax.add("GNU.sparse.major", []byte("1"))
		w.pax.add("GNU.sparse.minor", []byte("0"))
		w.pax.add("GNU.sparse.name", []byte(e.Name))
		w.pax.addInt("GNU.sparse.realsize", e.Size)
		binary = !utf8.ValidString(e.Name)
	case ok:
		copy(b.name(), name)
		copy(b.prefix(), prefix)
	default:
		copyName(b.name(), e.Name)
		w.pax.add("path", []byte(e.Name))
		binary = !utf8.ValidString(e.Name)
	}
	if e.Type == TypeLink || e.Type == TypeSymlink {
		copy(b.linkname(), e.Linkname)
		if len(e.Linkname) > len(b.linkname()) {
			w.pax.add("linkpath", []byte(e.Linkname))
			binary = binary || !utf8.ValidString(e.Linkname)
		}
	}
	if binary {
		w.pax.add("hdrcharset", []byte("BINARY"))
	}
}

// splitName splits a name at a slash into ustar's prefix and name. No part may be
// empty: readers put the slash in only if there is a prefix.
func splitName(s string) (prefix, name string, ok bool) {
	const maxName, maxPrefix = 100, 155
	if len(s) <= maxName {
		return "", s, true
	}
	if len(s) > maxPrefix+1+maxName {
		return "", "", false
	}
	// The first slash that leaves a name short enough, but not the one at the end.
	from := len(s) - maxName - 1
	i := strings.IndexByte(s[from:len(s)-1], '/')
	if i < 0 || from+i == 0 || from+i > maxPrefix {
		return "", "", false
	}
	return s[:from+i], s[from+i+1:], true
}

// copyName fills a name field with as much of a name as goes in. A slash must
// not end it: it would make a directory of the entry.
func copyName(field []byte, name string) {
	if len(name) > len(field) {
		name = strings.TrimRight(name[:len(field)], "/")
	}
	copy(field, name)
}

func baseName(name string) string {
	name = strings.TrimRight(name, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

func (w *Writer) fillNumbers(e *Entry, stored int64) {
	b := &w.blk
	putOctal(b.mode(), int64(e.Mode))
	w.putNumber(b.uid(), "uid", int64(e.UID))
	w.putNumber(b.gid(), "gid", int64(e.GID))
	w.putNumber(b.size(), "size", stored)
	putOctal(b.mtime(), min(max(e.MtimeSec, 0), maxOctal11))
	if e.MtimeSec < 0 || e.MtimeSec > maxOctal11 || e.MtimeNsec != 0 {
		w.pax.add("mtime", appendTime(nil, e.MtimeSec, e.MtimeNsec))
	}
	b[156] = e.Type
	copy(b.magic(), "ustar\x0000")
	if e.Type == TypeChar || e.Type == TypeBlock {
		w.putNumber(b.devmajor(), "SCHILY.devmajor", int64(e.Devmajor))
		w.putNumber(b.devminor(), "SCHILY.devminor", int64(e.Devminor))
	} else {
		putOctal(b.devmajor(), 0)
		putOctal(b.devminor(), 0)
	}
}

// putNumber fills a numeric field, or adds a record if the number is too great.
func (w *Writer) putNumber(field []byte, key string, n int64) {
	limit := int64(maxOctal7)
	if len(field) > 8 {
		limit = maxOctal11
	}
	if n > limit {
		w.pax.addInt(key, n)
		n = 0
	}
	putOctal(field, n)
}

func putOctal(field []byte, n int64) {
	for i := len(field) - 2; i >= 0; i-- {
		field[i] = '0' + byte(n&7)
		n >>= 3
	}
	field[len(field)-1] = 0
}

// setSum sets the checksum field: six digits, a NUL and a space.
func (b *block) setSum() {
	sum := b.sum()
	putOctal(b.chksum()[:7], sum)
	b.chksum()[7] = ' '
}

// appendTime appends a time as PAX has it: a decimal number as short as can be.
func appendTime(dst []byte, sec int64, nsec uint32) []byte {
	if nsec == 0 {
		return strconv.AppendInt(dst, sec, 10)
	}
	if sec < 0 {
		sec, nsec = -(sec + 1), 1e9-nsec
		dst = append(dst, '-')
	}
	dst = strconv.AppendInt(dst, sec, 10)
	var digits [10]byte
	digits[0] = '.'
	for i := 9; i > 0; i-- {
		digits[i] = '0' + byte(nsec%10)
		nsec /= 10
	}
	return append(dst, strings.TrimRight(string(digits[:]), "0")...)
}

// writePAX writes a PAX header that applies to the entry called name.
func (w *Writer) writePAX(name string, records []byte) {
	var b block
	copyName(b.name(), "PaxHeaders/"+baseName(name))
	putOctal(b.mode(), 0o644)
	putOctal(b.uid(), 0)
	putOctal(b.gid(), 0)
	putOctal(b.size(), int64(len(records)))
	putOctal(b.mtime(), 0)
	b[156] = 'x'
	copy(b.magic(), "ustar\x0000")
	putOctal(b.devmajor(), 0)
	putOctal(b.devminor(), 0)
	b.setSum()
	w.write(b[:])
	w.write(records)
	size := int64(len(records))
	w.writeZeros(roundUp(size) - size)
}

// paxBuilder collects the records of one PAX header.
type paxBuilder struct {
	list []paxRecord
	buf  []byte
}

type paxRecord struct {
	key   string
	value []byte
}

func (p *paxBuilder) reset() {
	clear(p.list)
	p.list, p.buf = p.list[:0], p.buf[:0]
}

func (p *paxBuilder) add(key string, value []byte) {
	p.list = append(p.list, paxRecord{key, value})
}

func (p *paxBuilder) addInt(key string, n int64) {
	p.add(key, strconv.AppendInt(nil, n, 10))
}

// records returns the records sorted by key, which no two share, except that
// hdrcharset comes first: it says how to read those behind it.
func (p *paxBuilder) records() []byte {
	slices.SortFunc(p.list, func(a, b paxRecord) int {
		if first := a.key == "hdrcharset"; first != (b.key == "hdrcharset") {
			if first {
				return -1
			}
			return 1
		}
		return strings.Compare(a.key, b.key)
	})
	for _, r := range p.list {
		rest := len(r.key) + len(r.value) + 3 // a space, '=' and a newline
		size := rest
		for digits := 1; ; digits++ { // the length counts its own digits
			if size = rest + digits; len(strconv.Itoa(size)) == digits {
				break
			}
		}
		p.buf = strconv.AppendInt(p.buf, int64(size), 10)
		p.buf = append(p.buf, ' ')
		p.buf = append(p.buf, r.key...)
		p.buf = append(p.buf, '=')
		p.buf = append(p.buf, r.value...)
		p.buf = append(p.buf, '\n')
	}
	return p.buf
}
