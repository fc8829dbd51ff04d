package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

// PackOptions say what the directory to pack is.
type PackOptions struct {
	// Upper says that it is an upper directory of overlayfs, whose marks become
	// whiteouts; otherwise it is plain content.
	Upper bool
	// Root is what the layer says of the root directory, in the place of what
	// the directory itself looks like; its Name is "./".
	Root *tarstream.Entry
	// Owners, if not nil, says who a file belongs to in the layer, for its user and group.
	Owners func(uid, gid uint32) (uint32, uint32)
	// Flat is given for an upper directory in which everything belongs to one user.
	Flat *Flat

	only selection // nil: all of it
}

// ErrCannotPack is wrapped by errors about a tree that a layer cannot express.
var ErrCannotPack = errors.New("cannot be in a layer")

// ErrChanged is wrapped where a file changed while it was packed.
var ErrChanged = errors.New("changed while it was packed")

// Names of whiteouts (OCI image specification, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Pack writes a directory to w as the tar of an OCI layer. The same tree gives the
// same bytes, wherever it lies: entries are in the order of their names byte by
// byte, each directory before what is in it, "./" first; there are no user names,
// no times but the modification time, no inode or device numbers; and of a
// sparse file it counts where 4096-byte blocks of zeros are, not which of them the
// filesystem has left out. (A file in which nothing is left out is not sparse, nor
// is one with few zeros, see worthHoles.)
//
// Sockets and attributes that are the host's business are left out. Nothing may
// change the directory meanwhile; where that is noticed it is an error.
func Pack(ctx context.Context, w io.Writer, dir *os.File, o PackOptions) error {
	p := &packer{
		ctx: ctx, w: tarstream.NewWriter(w), upper: o.Upper, like: o.Root, owners: o.Owners, flat: o.Flat, only: o.only, root: int(dir.Fd()),
		links: map[inode]firstName{}, xattrs: newXattrReader(), buf: make([]byte, 1<<20),
	}
	err := p.packRoot()
	if err == nil {
		err = p.w.Close()
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir.Name(), err)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// A firstName is the entry that the others of its file are links to.
type firstName struct {
	name     string
	uid, gid uint32
}

type packer struct {
	ctx    context.Context
	w      *tarstream.Writer
	root   int
	upper  bool
	like   *tarstream.Entry // of the root directory; nil: as it is
	only   selection        // nil: all
	owners func(uid, gid uint32) (uint32, uint32)
	flat   *Flat
	below  lookupBelow
	links  map[inode]firstName // files with several names
	xattrs *xattrReader
	buf    []byte
	dents  dentReader
}

// maxHeldDirs is how deep directories stay open while what is in them is
// packed. Deeper ones are opened again by their path.
const maxHeldDirs = 64

func (p *packer) packRoot() error {
	fd, err := openDirNoLinks(p.root, "")
	if err != nil {
		return err
	}
	return p.packDir(fd, "", 0)
}

// packDir packs a directory and all below it. It closes fd. Path is "" or ends in
// a slash.
func (p *packer) packDir(fd int, path string, depth int) (err error) {
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	self, err := p.dirHeader(fd, path)
	if err != nil {
		return fmt.Errorf("directory %q: %w", "/"+path, err)
	}
	entries, err := p.entries(fd, path)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", "/"+path, err)
	}
	for _, d := range entries {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		sub, err := p.packEntry(fd, path, d)
		if err != nil {
			return fmt.Errorf("%q: %w", "/"+path+d.name, err)
		}
		if sub < 0 {
			continue
		}
		if depth >= maxHeldDirs {
			unix.Close(fd)
			fd = -1
		}
		if err := p.packDir(sub, path+d.name+"/", depth+1); err != nil {
			return err
		}
		if fd < 0 {
			if fd, err = p.reopen(path, self); err != nil {
				return fmt.Errorf("directory %q: %w", "/"+path, err)
			}
		}
	}
	return nil
}

func (p *packer) entries(fd int, path string) ([]dent, error) {
	if p.only != nil {
		return p.only.entries(fd, path)
	}
	return p.dents.read(fd)
}

func (p *packer) reopen(path string, self inode) (int, error) {
	fd, err := openDirBelow(p.root, strings.TrimSuffix(path, "/"))
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if (inode{st.Dev, st.Ino}) != self {
		unix.Close(fd)
		return -1, ErrChanged
	}
	return fd, nil
}

// dirHeader writes a directory's entry, and the mark that it hides what is below.
func (p *packer) dirHeader(fd int, path string) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return inode{}, err
	}
	xs, m, err := p.xattrs.ofFD(fd)
	if err == nil {
		err = p.checkMarks(m)
	}
	if err != nil {
		return inode{}, err
	}
	name := path
	if name == "" {
		name = "./"
	}
	e, err := p.newEntry(name, path, tarstream.TypeDir, &st)
	if err != nil {
		return inode{}, err
	}
	e.Xattrs = xs
	if p.flat != nil {
		if err := p.flatten(e, fd, "", m); err != nil {
			return inode{}, err
		}
	}
	if path == "" && p.like != nil {
		e = p.like
	}
	if err := p.w.WriteHeader(e); err != nil {
		return inode{}, err
	}
	if p.upper && m.opaque || p.only != nil && p.only.opaque(path) {
		err = p.whiteout(path + whiteoutOpaque)
	}
	return inode{st.Dev, st.Ino}, err
}

func (p *packer) checkMarks(m marks) error {
	if p.upper && m.refers != "" {
		return fmt.Errorf("%w: attribute %s refers to the layers below (mounted with redirect_dir or metacopy?)",
			ErrCannotPack, m.refers)
	}
	return nil
}

// whiteout writes an empty file that is a mark by its name. All of them look
// the same.
func (p *packer) whiteout(name string) error {
	return p.w.WriteHeader(&tarstream.Entry{Name: name, Type: tarstream.TypeReg})
}

// packEntry packs one entry of a directory. A subdirectory is opened and
// returned, anything else is done and gives -1.
func (p *packer) packEntry(dirfd int, dir string, d dent) (sub int, err error) {
	if d.typ == unix.DT_WHT {
		return -1, p.whiteout(dir + whiteoutPrefix + d.name)
	}
	if strings.HasPrefix(d.name, whiteoutPrefix) {
		return -1, fmt.Errorf("%w: names that begin with %s mean deletions there", ErrCannotPack, whiteoutPrefix)
	}
	var st unix.Stat_t
	if d.typ != unix.DT_REG && d.typ != unix.DT_DIR {
		if err := unix.Fstatat(dirfd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return -1, err
		}
		d.typ = uint8(st.Mode & unix.S_IFMT >> 12) // as getdents(2) has it
	}
	switch d.typ {
	case unix.DT_DIR:
		return openRetry(dirfd, d.name, openDirFlags)
	case unix.DT_REG:
		return -1, p.packFile(dirfd, dir, d.name)
	case unix.DT_SOCK:
		return -1, nil
	case unix.DT_CHR:
		if st.Rdev == 0 {
			if !p.upper {
				return -1, fmt.Errorf("%w: a character device 0:0 is overlayfs' mark of a deletion", ErrCannotPack)
			}
			return -1, p.whiteout(dir + whiteoutPrefix + d.name)
		}
	}
	return -1, p.packSpecial(dirfd, dir, d.name, &st)
}

// packSpecial packs a symbolic link, device or FIFO.
func (p *packer) packSpecial(dirfd int, dir, name string, st *unix.Stat_t) error {
	e, err := p.newEntry(dir+name, dir+name, 0, st)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Type = tarstream.TypeSymlink
	case unix.S_IFCHR:
		e.Type = tarstream.TypeChar
	case unix.S_IFBLK:
		e.Type = tarstream.TypeBlock
	case unix.S_IFIFO:
		e.Type = tarstream.TypeFifo
	default:
		return fmt.Errorf("%w: a file of type %o", ErrCannotPack, st.Mode&unix.S_IFMT)
	}
	// None of these can be opened without effect; /proc gives a path to it that
	// does not depend on where the directory is.
	xs, m, err := p.xattrs.ofPath("/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name)
	if err == nil {
		err = p.checkMarks(m)
	}
	if err == nil && p.flat != nil {
		e.Xattrs = xs
		err = p.flatten(e, dirfd, name, m)
		xs = e.Xattrs
	}
	if err != nil {
		return err
	}
	if done, err := p.hardLink(e, st); done || err != nil {
		return err
	}
	switch e.Type {
	case tarstream.TypeSymlink:
		n, err := unix.Readlinkat(dirfd, name, p.buf)
		if err != nil {
			return err
		}
		e.Linkname = string(p.buf[:n])
	case tarstream.TypeChar, tarstream.TypeBlock:
		e.Devmajor, e.Devminor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	e.Xattrs = xs
	return p.w.WriteHeader(e)
}

// hardLink writes a link, and says so, if the inode has been packed under another
// name.
func (p *packer) hardLink(e *tarstream.Entry, st *unix.Stat_t) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	key := inode{st.Dev, st.Ino}
	first, ok := p.links[key]
	if !ok {
		p.links[key] = firstName{e.Name, e.UID, e.GID}
		return false, nil
	}
	e.Type, e.Linkname, e.Size = tarstream.TypeLink, first.name, 0
	e.UID, e.GID = first.uid, first.gid
	e.Devmajor, e.Devminor = 0, 0
	return true, p.w.WriteHeader(e)
}

// newEntry describes the file at path, under a name that may be another one.
func (p *packer) newEntry(name, path string, typ byte, st *unix.Stat_t) (*tarstream.Entry, error) {
	uid, gid := st.Uid, st.Gid
	if p.owners != nil {
		uid, gid = p.owners(uid, gid)
	}
	e := &tarstream.Entry{
		Name: name, Type: typ,
		Mode: st.Mode & 0o7777, UID: uid, GID: gid,
		MtimeSec: st.Mtim.Sec, MtimeNsec: uint32(st.Mtim.Nsec),
	}
	if p.only == nil {
		return e, nil
	}
	return e, p.only.settle(e, path, st)
}
