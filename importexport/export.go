package importexport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ExportOptions are how to export a container. The zero value is fine.
type ExportOptions struct {
	// Progress is told about exports that are large or slow; nil: nobody is.
	Progress progress.Display
	// Warn is told what of the tree is left out because the place cannot hold it; nil: nobody is.
	Warn func(string)
}

func (o *ExportOptions) warn(text string) {
	if o.Warn != nil {
		o.Warn(text)
	}
}

// exportView opens a container's tree and lets write write it, which tells a meter how that goes.
func exportView(ctx context.Context, st *container.Store, id container.ID, o ExportOptions, write func(*cas.View, *progress.Meter) error) error {
	err := progress.Show(o.Progress, func(m *progress.Meter) (err error) {
		view, err := openView(ctx, st, id)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, view.Close()) }()
		return write(view, m)
	})
	if err != nil {
		return fmt.Errorf("export container %d: %w", id, err)
	}
	return nil
}

// exportBuffer is what is gathered before it is written: most entries are
// smaller than a system call is worth.
const exportBuffer = 512 << 10

// ExportTar writes the whole tree of a container as one tar: "./" first, parents
// before their entries, these sorted by name; hard links as links to the first
// of their names, sparse files as such. The same container gives the same
// bytes, on every machine.
func ExportTar(ctx context.Context, st *container.Store, id container.ID, w io.Writer, o ExportOptions) error {
	return exportView(ctx, st, id, o, func(view *cas.View, m *progress.Meter) error {
		g, ctx := errgroup.WithContext(ctx)
		// Nothing waits for this: where files are small, it takes a tenth as long as to write them. What
		// is wrong with the index, writing finds, too, and says where.
		g.Go(func() error {
			if size, err := view.DataSize(ctx); err == nil {
				m.Expect(size)
			}
			return nil
		})
		g.Go(func() error { return writeTree(ctx, view, w, m) })
		return g.Wait()
	})
}

func writeTree(ctx context.Context, view *cas.View, w io.Writer, m *progress.Meter) error {
	buf := bufio.NewWriterSize(w, exportBuffer)
	x := exporter{ctx: ctx, view: view, tw: tarstream.NewWriter(buf), meter: m, links: map[erofs.NID]string{}}
	if err := x.tree(); err != nil {
		return err
	}
	if err := x.tw.Close(); err != nil {
		return err
	}
	return buf.Flush()
}

// openView opens a container's tree. Once it is open the container may be
// removed without harm to it.
func openView(ctx context.Context, st *container.Store, id container.ID) (_ *cas.View, err error) {
	unlock, err := st.CAS().LockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	chain, err := st.Chain(id)
	if err != nil {
		return nil, err
	}
	_ = st.Touch(id) // who may only read the store does not count
	layers := make([]digest.Digest, len(chain))
	for i, r := range chain {
		layers[i] = r.Layer
	}
	return st.CAS().View(ctx, layers)
}

// exporter writes a tree, depth first.
type exporter struct {
	ctx   context.Context
	view  *cas.View
	tw    *tarstream.Writer
	meter *progress.Meter
	links map[erofs.NID]string // first name of each inode that has several
}

func (x *exporter) tree() error {
	root, err := x.view.Inode(x.view.Root())
	if err != nil {
		return err
	}
	return x.dir("./", &root)
}

// dir writes a directory and what is in it. name ends with a slash.
func (x *exporter) dir(name string, in *erofs.Inode) error {
	if err := x.ctx.Err(); err != nil {
		return context.Cause(x.ctx)
	}
	if err := x.header(name, in, tarstream.Entry{Type: tarstream.TypeDir}); err != nil {
		return err
	}
	var inner error
	err := x.view.ReadDir(in, func(d erofs.Dirent) bool {
		inner = x.entry(name+string(d.Name), d.NID)
		return inner == nil
	})
	return errors.Join(err, inner)
}

// entry writes what name is, with all below it.
func (x *exporter) entry(name string, nid erofs.NID) error {
	in, err := x.view.Inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if in.IsDir() {
		return x.dir(name+"/", &in)
	}
	if in.Nlink > 1 {
		if first, ok := x.links[nid]; ok {
			return x.header(name, &in, tarstream.Entry{Type: tarstream.TypeLink, Linkname: first})
		}
		x.links[nid] = name
	}
	e := tarstream.Entry{}
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return x.file(name, &in)
	case unix.S_IFLNK:
		e.Type = tarstream.TypeSymlink
		if e.Linkname, err = x.view.Readlink(&in); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case unix.S_IFIFO:
		e.Type = tarstream.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		if in.IsWhiteout() {
			return nil // means nothing in a tree of its own
		}
		e.Type = tarstream.TypeChar
		if in.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Type = tarstream.TypeBlock
		}
		e.Devmajor, e.Devminor = unix.Major(in.Rdev), unix.Minor(in.Rdev)
	default:
		return nil // tar knows no sockets
	}
	return x.header(name, &in, e)
}

// header writes e with what all types of entries have.
func (x *exporter) header(name string, in *erofs.Inode, e tarstream.Entry) error {
	e.Name = name
	e.Mode = in.Mode &^ unix.S_IFMT
	e.UID, e.GID = in.UID, in.GID
	e.MtimeSec, e.MtimeNsec = in.MtimeSec, in.MtimeNsec
	if e.Type != tarstream.TypeLink {
		xattrs, err := x.view.Xattrs(in)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, a := range xattrs {
			e.Xattrs = append(e.Xattrs, tarstream.Xattr{Name: a.Name, Value: a.Value})
		}
	}
	if err := x.tw.WriteHeader(&e); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// file writes a regular file with its content.
func (x *exporter) file(name string, in *erofs.Inode) error {
	extents, err := x.extents(in)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	e := tarstream.Entry{Type: tarstream.TypeReg, Size: in.Size}
	var data int64
	segments := []tarstream.Segment{}
	for _, ext := range extents {
		data += ext.Len
		if n := len(segments); n > 0 && segments[n-1].Off+segments[n-1].Len == ext.Off {
			segments[n-1].Len += ext.Len
		} else {
			segments = append(segments, tarstream.Segment{Off: ext.Off, Len: ext.Len})
		}
	}
	if data < in.Size {
		e.Sparse = segments
	}
	if err := x.header(name, in, e); err != nil {
		return err
	}
	for _, ext := range extents {
		if err := x.data(ext); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// exportPiece is what is written before it is looked whether that is still wanted, and told.
const exportPiece = 4 << 20

// data writes a stretch of a file's data.
func (x *exporter) data(ext erofs.Extent) error {
	for ext.Len > 0 {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		want := min(ext.Len, exportPiece)
		n, err := x.tw.ReadFrom(io.NewSectionReader(x.view.Device(ext.Device), ext.Phys, want))
		if err == nil && n < want {
			err = fmt.Errorf("%w: %d bytes at %d of a blob, where %d are expected", io.ErrUnexpectedEOF, n, ext.Phys, want)
		}
		if err != nil {
			return err
		}
		x.meter.Add(n)
		ext.Phys, ext.Len = ext.Phys+n, ext.Len-n
	}
	return nil
}

// extents is where the bytes of a file lie, not beyond its size.
func (x *exporter) extents(in *erofs.Inode) ([]erofs.Extent, error) {
	var all []erofs.Extent
	err := x.view.Extents(in, func(ext erofs.Extent) bool {
		ext.Len = min(ext.Len, in.Size-ext.Off)
		if ext.Len > 0 {
			all = append(all, ext)
		}
		return true
	})
	return all, err
}
