package tarstream

import (
	"bytes"
	"encoding/binary"
)

const blockSize = 512

// block is a header block. Its layout is that of POSIX pax, "ustar Interchange
// Format"; the GNU and star variants are in GNU tar's tar.h.
type block [blockSize]byte

func (b *block) name() []byte     { return b[0:100] }
func (b *block) mode() []byte     { return b[100:108] }
func (b *block) uid() []byte      { return b[108:116] }
func (b *block) gid() []byte      { return b[116:124] }
func (b *block) size() []byte     { return b[124:136] }
func (b *block) mtime() []byte    { return b[136:148] }
func (b *block) chksum() []byte   { return b[148:156] }
func (b *block) flag() byte       { return b[156] }
func (b *block) linkname() []byte { return b[157:257] }
func (b *block) magic() []byte    { return b[257:265] }
func (b *block) devmajor() []byte { return b[329:337] }
func (b *block) devminor() []byte { return b[337:345] }
func (b *block) prefix() []byte   { return b[345:500] }

type format byte

const (
	formatV7    format = iota
	formatUstar        // and PAX
	formatGNU
	formatStar
)

// format tells the layout from the magic. The version behind "ustar\0" is not
// looked at: not all writers set it.
func (b *block) format() format {
	switch {
	case string(b[257:265]) == "ustar  \x00":
		return formatGNU
	case string(b[257:263]) != "ustar\x00":
		return formatV7
	case string(b[508:512]) == "tar\x00":
		return formatStar
	}
	return formatUstar
}

// prefixOf returns the part of the name that the prefix field holds, maybe none.
func (b *block) prefixOf(f format) []byte {
	switch f {
	case formatUstar:
		return cstring(b.prefix())
	case formatStar:
		return cstring(b[345:476])
	case formatGNU:
		// Here are atime and ctime. Go before 1.8 wrote a prefix all the same, and
		// so do old container images: it is one if it is text and no number.
		if b[345] == 0 {
			return nil
		}
		_, atime := parseNumber(b[345:357])
		_, ctime := parseNumber(b[357:369])
		if p := cstring(b.prefix()); (!atime || !ctime) && isASCII(p) {
			return p
		}
	}
	return nil
}

var zeroBlock block

func (b *block) isZero() bool {
	return binary.LittleEndian.Uint64(b[:]) == 0 && *b == zeroBlock
}

// checkSum reports whether the checksum is right: the sum of all bytes with the
// field itself as spaces. Some old writers added the bytes as signed ones.
func (b *block) checkSum() bool {
	want, ok := parseNumber(b.chksum())
	if !ok {
		return false
	}
	sum := b.sum()
	if sum == want {
		return true
	}
	for i, c := range b {
		if c >= 0x80 && (i < 148 || i >= 156) {
			sum -= 256
		}
	}
	return sum == want
}

// sum adds eight bytes at a time, as four lanes of 16 bits: 64 times twice 255
// does not overflow one. Bytewise this would be most of the time Next takes.
func (b *block) sum() int64 {
	const lanes = 0x00ff00ff00ff00ff
	var acc uint64
	for i := 0; i < blockSize; i += 8 {
		x := binary.LittleEndian.Uint64(b[i : i+8])
		acc += x&lanes + x>>8&lanes
	}
	acc = acc&0x0000ffff0000ffff + acc>>16&0x0000ffff0000ffff
	sum := int64(uint32(acc)) + int64(acc>>32)
	for _, c := range b.chksum() {
		sum += ' ' - int64(c)
	}
	return sum
}

// parseNumber reads a numeric field: octal digits between spaces and NULs, an
// empty field being 0, or GNU's base 256, which is marked by the first bit and
// is a two's complement number of the bits behind it.
func parseNumber(f []byte) (int64, bool) {
	if f[0]&0x80 != 0 {
		return parseBase256(f)
	}
	i := 0
	for i < len(f) && (f[i] == ' ' || f[i] == 0) {
		i++
	}
	neg := i < len(f) && f[i] == '-'
	if neg {
		i++
	}
	var n int64 // at most 12 octal digits: no overflow
	start := i
	for i < len(f) && f[i]-'0' < 8 {
		n = n<<3 | int64(f[i]-'0')
		i++
	}
	if i < len(f) && f[i] != ' ' && f[i] != 0 || neg && i == start {
		return 0, false
	}
	if neg {
		n = -n
	}
	return n, true
}

func parseBase256(f []byte) (int64, bool) {
	var invert byte // of a negative number the complement is added up
	if f[0]&0x40 != 0 {
		invert = 0xff
	}
	var n uint64
	for i, c := range f {
		c ^= invert
		if i == 0 {
			c &= 0x7f
		}
		if n >= 1<<55 {
			return 0, false
		}
		n = n<<8 | uint64(c)
	}
	if invert != 0 {
		return int64(^n), true
	}
	return int64(n), true
}

// cstring returns the bytes before the first NUL.
func cstring(f []byte) []byte {
	if i := bytes.IndexByte(f, 0); i >= 0 {
		return f[:i]
	}
	return f
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
