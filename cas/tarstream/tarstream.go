// Package tarstream reads and writes tar streams and says where in the stream
// each file's data lies, which archive/tar hides.
//
// # Reading
//
// A Reader parses v7, ustar, POSIX PAX, GNU and star headers from a Source and
// yields one Entry for each member. It never looks at file data: it passes over
// it, and whoever wants the content reads the blob later, at Entry.DataOff.
// The input is taken to be hostile: every number is checked for overflow and
// range, every length has a limit, and memory stays bounded by what was read.
//
// What is not done here: names are neither cleaned nor checked (no "..", no
// absolute paths are taken out), hard links are not resolved, and the extended
// attributes' names and sizes are not checked against what a kernel would take.
//
// Choices where the formats leave one:
//   - PAX records override GNU long names, which override the header's fields.
//     Of two local PAX headers before one entry only the last counts.
//   - Links, devices, directories and FIFOs have no data, whatever their size
//     field says. Only GNU's dump directories ('D') and directories marked by
//     nothing but a trailing slash have, and it is passed over.
//   - Type flags 'A' to 'Z' that have no meaning here are regular files, as POSIX
//     asks for; any other unknown flag is ErrUnsupported.
//   - A single zero block followed by something else is an error, not an end:
//     members behind it would be lost in silence.
//   - Padding is part of an entry: a stream that ends in it is truncated.
//
// # Writing
//
// A Writer writes ustar, with a PAX header where ustar cannot hold a value. It is
// deterministic: the same entries give the same bytes.
package tarstream

import (
	"errors"
	"fmt"
)

// Limits on what an archive may ask for.
const (
	// MaxHeader is the greatest size in bytes of a PAX header and of a GNU long
	// name.
	MaxHeader = 1 << 20
	// MaxGlobal is the greatest size in bytes of what global PAX headers may say
	// of extended attributes and ACLs. It is small because each entry repeats it.
	MaxGlobal = 4 << 10
	// MaxName is the greatest length in bytes of a name or link target.
	MaxName = 16 * 4096
	// MaxSegments is the greatest number of segments of a sparse file.
	MaxSegments = 1 << 20
)

// Sentinels of what is wrong with a stream, found with errors.Is.
var (
	ErrHeader      = errors.New("invalid tar header")
	ErrTruncated   = errors.New("archive is truncated")
	ErrTooLong     = errors.New("header is too long")
	ErrSparse      = errors.New("invalid sparse map")
	ErrUnsupported = errors.New("unsupported tar feature")
)

// Error says where in the stream something is wrong.
type Error struct {
	Offset int64  // of the first header block of the entry
	Name   string // of the entry, as far as it is known
	Err    error
}

func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("tar stream at offset %d: %v", e.Offset, e.Err)
	}
	name := e.Name
	if len(name) > shownName {
		name = name[:shownName] + "…"
	}
	return fmt.Sprintf("tar entry %q at offset %d: %v", name, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// shownName is how much of a name is shown in errors, in bytes.
const shownName = 400

// Types of entries. The Reader yields no others.
const (
	TypeReg     = '0'
	TypeLink    = '1' // hard link to Linkname
	TypeSymlink = '2'
	TypeChar    = '3'
	TypeBlock   = '4'
	TypeDir     = '5'
	TypeFifo    = '6'
)

// Segment is a run of data in a sparse file: its offset in the file and its
// length, both in bytes.
type Segment struct{ Off, Len int64 }

// Xattr is an extended attribute. Name is the full one ("user.x",
// "security.capability", "system.posix_acl_access"); Value is what the kernel
// takes and gives for it.
type Xattr struct {
	Name  string
	Value []byte
}

// Entry is one member of an archive.
type Entry struct {
	// Name and Linkname are the bytes of the archive, maybe not UTF-8, never with
	// a NUL. They are not cleaned.
	Name, Linkname string
	Type           byte
	Mode           uint32 // permission, setuid, setgid and sticky bits: 07777
	UID, GID       uint32
	// MtimeSec and MtimeNsec are the time since the epoch; MtimeNsec counts
	// forward from MtimeSec also before 1970.
	MtimeSec           int64
	MtimeNsec          uint32
	Devmajor, Devminor uint32 // of TypeChar and TypeBlock

	// Size is the length in bytes a regular file has for its reader, holes
	// included; 0 for other types.
	Size int64
	// Sparse lists where a sparse file has data: sorted, not overlapping, inside
	// Size, without empty segments. It is nil for a file that is not sparse, and
	// empty but not nil for one that is only a hole.
	Sparse []Segment

	DataOff   int64 // offset in the stream of the first byte of data
	DataLen   int64 // bytes of data in the stream: Size, or the sum of the segments
	HeaderOff int64 // offset in the stream of the first header block of this entry

	Xattrs []Xattr // sorted by name, each name once
}
