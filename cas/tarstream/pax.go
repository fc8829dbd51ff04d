package tarstream

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
)

// paxSet is a set of PAX records. The vendors' ones are described in the manuals
// of star (SCHILY), libarchive's tar(5) (LIBARCHIVE) and GNU tar (GNU.sparse).
type paxSet uint32

const (
	paxPath paxSet = 1 << iota
	paxLinkpath
	paxSize
	paxUID
	paxGID
	paxMtime
	paxDevmajor
	paxDevminor
	paxRealsize
	paxACLAccess
	paxACLDefault
	paxSparseName
	paxSparseMajor
	paxSparseMinor
	paxSparseSize
	paxSparseBlocks
	paxSparseMap

	paxACLs = paxACLAccess | paxACLDefault
)

// paxFields is what the records of a local header, or all global headers
// together, say.
type paxFields struct {
	set     paxSet // the records that have a value
	deleted paxSet // those that are there but empty: no global value counts
	dirty   bool

	path, linkpath        string
	size, realsize        int64
	uid, gid              uint32
	mtimeSec              int64
	mtimeNsec             uint32
	devmajor, devminor    uint32
	aclAccess, aclDefault string
	xattrs                []Xattr // unsorted, maybe some twice
	sparseName            string
	sparseMajor           int64
	sparseMinor           int64
	sparseSize            int64
	sparseBlocks          int64
	sparseMap             []Segment
	sparseOff             int64 // of version 0.0: the offset whose length comes next
	sparseOffSet          bool
}

func (p *paxFields) reset() {
	if p.dirty {
		clear(p.xattrs)
		*p = paxFields{xattrs: p.xattrs[:0], sparseMap: p.sparseMap[:0]}
	}
}

// pax returns the header that has the field's value: the local one, or the
// global one, or nil.
func (r *Reader) pax(field paxSet) *paxFields {
	switch {
	case r.local.set&field != 0:
		return &r.local
	case r.local.deleted&field == 0 && r.global.set&field != 0:
		return &r.global
	}
	return nil
}

// readPAX reads the header's records into p.
func (r *Reader) readPAX(p *paxFields, global bool) error {
	if err := r.readPayload(); err != nil {
		return err
	}
	p.dirty = true
	for data := r.buf; len(data) > 0; {
		key, value, rest, ok := cutRecord(data)
		if !ok {
			return fmt.Errorf("%w: damaged PAX record at byte %d of the extended header", ErrHeader, len(r.buf)-len(data))
		}
		data = rest
		if err := p.add(key, value, global); err != nil {
			return fmt.Errorf("PAX record %s: %w", printable(key), err)
		}
	}
	if global {
		return p.compactGlobal()
	}
	return nil
}

// cutRecord cuts a record, "LENGTH KEY=VALUE\n", off data. Values may hold any
// byte, so only LENGTH says where one ends.
func cutRecord(data []byte) (key, value, rest []byte, ok bool) {
	n, i := 0, 0
	for ; i < len(data) && data[i] != ' '; i++ {
		d := data[i] - '0'
		if d > 9 || n > MaxHeader {
			return nil, nil, nil, false
		}
		n = n*10 + int(d)
	}
	if n > len(data) || n < i+3 || data[n-1] != '\n' {
		return nil, nil, nil, false
	}
	key, value, ok = bytes.Cut(data[i+1:n-1], []byte{'='})
	return key, value, data[n:], ok && len(key) > 0 && bytes.IndexByte(key, 0) < 0
}

func (p *paxFields) add(key, value []byte, global bool) error {
	var err error
	switch string(key) {
	case "path":
		err = p.setString(paxPath, &p.path, value)
	case "linkpath":
		err = p.setString(paxLinkpath, &p.linkpath, value)
	case "size":
		err = p.setInt(paxSize, &p.size, value)
	case "uid":
		err = p.setID(paxUID, &p.uid, value)
	case "gid":
		err = p.setID(paxGID, &p.gid, value)
	case "mtime":
		if p.mark(paxMtime, value) {
			p.mtimeSec, p.mtimeNsec, err = parseTime(string(value))
		}
	case "SCHILY.devmajor":
		err = p.setUint32(paxDevmajor, &p.devmajor, value)
	case "SCHILY.devminor":
		err = p.setUint32(paxDevminor, &p.devminor, value)
	case "SCHILY.realsize":
		err = p.setInt(paxRealsize, &p.realsize, value)
	case "SCHILY.acl", "SCHILY.acl.access":
		if p.mark(paxACLAccess, value) {
			p.aclAccess = string(value)
		}
	case "SCHILY.acl.default":
		if p.mark(paxACLDefault, value) {
			p.aclDefault = string(value)
		}
	case "RHT.security.selinux":
		// The kernel's value has a NUL at the end, GNU tar's has not.
		err = p.addXattr("security.selinux", append(bytes.TrimRight(cloneValue(value), "\x00"), 0))
	default:
		if name, ok := bytes.CutPrefix(key, []byte("SCHILY.xattr.")); ok {
			return p.addXattr(decodeXattrName(string(name)), cloneValue(value))
		} else if name, ok := bytes.CutPrefix(key, []byte("LIBARCHIVE.xattr.")); ok {
			return p.addLibarchive(string(name), string(value))
		} else if sub, ok := bytes.CutPrefix(key, []byte("GNU.sparse.")); ok && !global {
			return p.addSparse(string(sub), value)
		}
	}
	return err
}

// mark notes that a record is there and reports whether it has a value.
func (p *paxFields) mark(field paxSet, value []byte) bool {
	if len(value) == 0 {
		p.set &^= field
		p.deleted |= field
		return false
	}
	p.deleted &^= field
	p.set |= field
	return true
}

func (p *paxFields) setString(field paxSet, s *string, value []byte) error {
	if len(value) > MaxName {
		return fmt.Errorf("%w: %d bytes, at most %d are read", ErrTooLong, len(value), MaxName)
	}
	if bytes.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("%w: %q has a NUL", ErrHeader, value)
	}
	if p.mark(field, value) {
		*s = string(value)
	}
	return nil
}

func (p *paxFields) setInt(field paxSet, n *int64, value []byte) error {
	if !p.mark(field, value) {
		return nil
	}
	v, ok := parseDecimal(value)
	if !ok {
		return fmt.Errorf("%w: %s is no number", ErrHeader, printable(value))
	}
	*n = v
	return nil
}

func (p *paxFields) setUint32(field paxSet, n *uint32, value []byte) error {
	var v int64
	if err := p.setInt(field, &v, value); err != nil {
		return err
	}
	if v > math.MaxUint32 {
		return fmt.Errorf("%w: %d is out of range", ErrHeader, v)
	}
	*n = uint32(v)
	return nil
}

func (p *paxFields) setID(field paxSet, n *uint32, value []byte) error {
	if err := p.setUint32(field, n, value); err != nil {
		return err
	}
	if *n == math.MaxUint32 {
		return fmt.Errorf("%w: %d is no id", ErrHeader, *n)
	}
	return nil
}

// addLibarchive adds an attribute in libarchive's form: the name encoded as in a
// URL, the value in base64, mostly without padding.
func (p *paxFields) addLibarchive(name, value string) error {
	name, err := url.PathUnescape(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHeader, err)
	}
	v, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "=\n"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHeader, err)
	}
	return p.addXattr(name, cloneValue(v))
}

func (p *paxFields) addXattr(name string, value []byte) error {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("%w: extended attribute %q", ErrHeader, name)
	}
	p.xattrs = append(p.xattrs, Xattr{name, value})
	return nil
}

func (p *paxFields) addSparse(key string, value []byte) error {
	switch key {
	case "name":
		return p.setString(paxSparseName, &p.sparseName, value)
	case "major":
		return p.setInt(paxSparseMajor, &p.sparseMajor, value)
	case "minor":
		return p.setInt(paxSparseMinor, &p.sparseMinor, value)
	case "size", "realsize":
		return p.setInt(paxSparseSize, &p.sparseSize, value)
	case "numblocks":
		return p.setInt(paxSparseBlocks, &p.sparseBlocks, value)
	case "offset":
		off, ok := parseDecimal(value)
		if !ok || p.sparseOffSet {
			return fmt.Errorf("%w: offset %s", ErrSparse, printable(value))
		}
		p.sparseOff, p.sparseOffSet = off, true
	case "numbytes":
		n, ok := parseDecimal(value)
		if !ok || !p.sparseOffSet {
			return fmt.Errorf("%w: numbytes %s", ErrSparse, printable(value))
		}
		p.sparseMap = append(p.sparseMap, Segment{p.sparseOff, n})
		p.sparseOffSet = false
		p.set |= paxSparseMap
	case "map":
		return p.addSparseMap(value)
	}
	return nil
}

// addSparseMap reads version 0.1's "offset,length,offset,length…".
func (p *paxFields) addSparseMap(value []byte) error {
	p.sparseMap = p.sparseMap[:0]
	p.set |= paxSparseMap
	for more := len(value) > 0; more; {
		var off, n []byte
		off, value, more = bytes.Cut(value, []byte{','})
		if !more {
			return fmt.Errorf("%w: odd count of numbers", ErrSparse)
		}
		n, value, more = bytes.Cut(value, []byte{','})
		o, ok1 := parseDecimal(off)
		l, ok2 := parseDecimal(n)
		if !ok1 || !ok2 {
			return fmt.Errorf("%w: segment %s,%s", ErrSparse, printable(off), printable(n))
		}
		p.sparseMap = append(p.sparseMap, Segment{o, l})
	}
	return nil
}

// compactGlobal keeps what global headers pile up within the limits.
func (p *paxFields) compactGlobal() error {
	p.xattrs = sortXattrs(p.xattrs)
	kept, total := p.xattrs[:0], len(p.aclAccess)+len(p.aclDefault)
	for _, x := range p.xattrs {
		if len(x.Value) > 0 {
			kept = append(kept, x)
			total += len(x.Name) + len(x.Value)
		}
	}
	clear(p.xattrs[len(kept):])
	p.xattrs = kept
	if total > MaxGlobal {
		return fmt.Errorf("%w: global headers hold attributes of %d bytes, at most %d are read", ErrTooLong, total, MaxGlobal)
	}
	return nil
}

// parseDecimal reads a number without sign that fits in 63 bits.
func parseDecimal(s []byte) (int64, bool) {
	if len(s) == 0 {
		return 0, false
	}
	var n int64
	for _, c := range s {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// parseTime reads seconds with an optional fraction, of which it takes nine
// digits. The nanoseconds it returns count forward: -1.5 is -2 and 500000000.
func parseTime(s string) (sec int64, nsec uint32, err error) {
	bad := fmt.Errorf("%w: time %s", ErrHeader, printable([]byte(s)))
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err = strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, 0, bad
	}
	unit := uint32(1e8)
	for _, c := range []byte(fraction) {
		d := uint32(c) - '0'
		if d > 9 {
			return 0, 0, bad
		}
		nsec += d * unit
		unit /= 10
	}
	if nsec > 0 && strings.HasPrefix(whole, "-") {
		if sec == math.MinInt64 {
			return 0, 0, bad
		}
		sec, nsec = sec-1, 1e9-nsec
	}
	return sec, nsec, nil
}

// printable quotes a piece of input for an error, shortened.
func printable(s []byte) string {
	if len(s) > 64 {
		return strconv.Quote(string(s[:64])) + "…"
	}
	return strconv.Quote(string(s))
}

// GNU tar encodes the two characters of an attribute's name that a PAX key cannot
// hold; most other writers cannot write such a name at all.
var (
	xattrNameEncoder = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrNameDecoder = strings.NewReplacer("%25", "%", "%3D", "=")
)

func encodeXattrName(name string) string { return xattrNameEncoder.Replace(name) }
func decodeXattrName(name string) string { return xattrNameDecoder.Replace(name) }
