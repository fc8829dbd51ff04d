package cas

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"golang.org/x/sys/unix"
)

// Names with which OCI layers say that something is deleted: OCI image
// specification, layer.md, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
	// Other names of this prefix are bookkeeping of AUFS and mean nothing.
	whiteoutMeta = ".wh..wh."
)

// layerTree is what a layer's tar says.
type layerTree struct {
	*erofs.Tree
	entries int  // members of the archive
	ended   bool // whether it has an end marker
}

// parseLayer reads a layer's tar stream. The data of regular files is at device 1,
// whose tag and size are left for the caller to set. Whole says that there is another way to
// tell that the stream has not been cut off, so that its end may look as if it had.
func parseLayer(src tarstream.Source, whole bool) (*layerTree, error) {
	tree := &layerTree{Tree: erofs.NewTree()}
	if _, err := tree.AddDevice("", 0); err != nil {
		return nil, err
	}
	r := tarstream.NewReader(src)
	r.Unpadded = whole
	for {
		e, err := r.Next()
		if err == io.EOF {
			tree.ended = r.Ended()
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
		if err := putEntry(tree.Tree, e); err != nil {
			return nil, &tarstream.Error{Offset: e.HeaderOff, Name: e.Name, Err: err}
		}
		tree.entries++
	}
}

// putEntry puts one member of a layer's tar into the tree.
func putEntry(tree *erofs.Tree, e *tarstream.Entry) error {
	if strings.Contains(e.Name, whiteoutPrefix) {
		dir, name := path.Split(strings.TrimRight(e.Name, "/"))
		switch deleted, ok := strings.CutPrefix(name, whiteoutPrefix); {
		case name == opaqueWhiteout:
			return tree.Opaque(dir)
		case strings.HasPrefix(name, whiteoutMeta):
			return nil
		case ok && (deleted == "" || deleted == "." || deleted == ".."):
			return fmt.Errorf("%w: a whiteout of nothing", erofs.ErrPath)
		case ok:
			return tree.Whiteout(dir + deleted)
		}
	}
	attr := erofs.Attr{
		Mode: e.Mode, UID: e.UID, GID: e.GID,
		MtimeSec: e.MtimeSec, MtimeNsec: e.MtimeNsec,
	}
	var content erofs.Content
	switch e.Type {
	case tarstream.TypeLink:
		return tree.Link(e.Name, e.Linkname)
	case tarstream.TypeReg:
		attr.Mode |= unix.S_IFREG
		attr.Size = e.Size
		content.Extents = extents(e)
	case tarstream.TypeSymlink:
		// Linux knows no other mode of a link, whatever some archives say.
		attr.Mode = unix.S_IFLNK | 0o777
		content.Target = e.Linkname
	case tarstream.TypeDir:
		attr.Mode |= unix.S_IFDIR
	case tarstream.TypeChar:
		attr.Mode |= unix.S_IFCHR
	case tarstream.TypeBlock:
		attr.Mode |= unix.S_IFBLK
	case tarstream.TypeFifo:
		attr.Mode |= unix.S_IFIFO
	}
	if e.Type == tarstream.TypeChar || e.Type == tarstream.TypeBlock {
		attr.Rdev = unix.Mkdev(e.Devmajor, e.Devminor)
	}
	xattrs := make([]erofs.Xattr, len(e.Xattrs))
	for i, x := range e.Xattrs {
		xattrs[i] = erofs.Xattr(x)
	}
	return tree.Put(e.Name, attr, xattrs, content)
}

// extents says where an entry's data lies in the blob.
func extents(e *tarstream.Entry) []erofs.Extent {
	if e.Sparse == nil {
		if e.Size == 0 {
			return nil
		}
		return []erofs.Extent{{Len: e.Size, Device: 1, Phys: e.DataOff}}
	}
	ext := make([]erofs.Extent, len(e.Sparse))
	at := e.DataOff
	for i, s := range e.Sparse {
		ext[i] = erofs.Extent{Off: s.Off, Len: s.Len, Device: 1, Phys: at}
		at += s.Len
	}
	return ext
}

// fileSource lets the parser pass over file data of a blob without reading it.
type fileSource struct {
	f         *os.File
	off, size int64
}

func newFileSource(f *os.File) (*fileSource, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &fileSource{f: f, size: fi.Size()}, nil
}

func (s *fileSource) Read(p []byte) (int, error) {
	n, err := s.f.ReadAt(p, s.off)
	s.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (s *fileSource) Skip(n int64) error {
	if n > s.size-s.off {
		s.off = s.size
		return io.ErrUnexpectedEOF
	}
	s.off += n
	return nil
}
