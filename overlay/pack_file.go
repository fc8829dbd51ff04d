package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

// sparseBlock is the unit in which a sparse file's content is looked at: blocks
// of zeros are holes.
const sparseBlock = 4096

// worthHoles is how many bytes of zeros a file must have for a layer to leave them out. The
// OCI image specification (layer.md, "Sparse files") wants no sparse members in layers, and
// Docker cannot save or push an image that has one, though it loads and runs it. So what fits
// is written in full, as /var/log/lastlog with the users that images usually have; after one
// whose id has 32 bits that file is larger than a terabyte.
const worthHoles = 64 << 20

// packFile packs a regular file.
func (p *packer) packFile(dirfd int, dir, name string) error {
	fd, err := openFile(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrChanged // it was a regular file a moment ago
	}
	xs, m, err := p.xattrs.ofFD(fd)
	if err == nil {
		err = p.checkMarks(m)
	}
	if err != nil {
		return err
	}
	if p.upper && m.whiteout && st.Size == 0 {
		return p.whiteout(dir + whiteoutPrefix + name)
	}
	e, err := p.newEntry(dir+name, dir+name, tarstream.TypeReg, &st)
	if err != nil {
		return err
	}
	e.Xattrs, e.Size = xs, st.Size
	if p.flat != nil {
		if err := p.flatten(e, fd, "", m); err != nil {
			return err
		}
	}
	if done, err := p.hardLink(e, &st); done || err != nil {
		return err
	}
	if e.Type != tarstream.TypeReg {
		return p.w.WriteHeader(e) // a device
	}
	if err := p.findHoles(fd, e); err != nil {
		return err
	}
	if err := p.w.WriteHeader(e); err != nil {
		return err
	}
	segments := e.Sparse
	if segments == nil {
		segments = []tarstream.Segment{{Off: 0, Len: e.Size}}
	}
	for _, s := range segments {
		if err := p.copySegment(fd, s); err != nil {
			return err
		}
	}
	return checkUnchanged(fd, &st)
}

// openFile opens what should be a regular file. If it is a FIFO by now, that does
// not block. O_NOATIME, as packing is not using; it needs the file's owner or root.
func openFile(dirfd int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := openRetry(dirfd, name, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = openRetry(dirfd, name, flags)
	}
	return fd, err
}

func (p *packer) copySegment(fd int, s tarstream.Segment) error {
	for s.Len > 0 {
		n, err := p.readAt(fd, s)
		if err != nil {
			return err
		}
		if _, err := p.w.Write(p.buf[:n]); err != nil {
			return err
		}
		s.Off, s.Len = s.Off+int64(n), s.Len-int64(n)
	}
	return nil
}

// readAt reads the beginning of a segment into p.buf, as much as it takes.
func (p *packer) readAt(fd int, s tarstream.Segment) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	want := p.buf[:min(s.Len, int64(len(p.buf)))]
	for got := 0; got < len(want); {
		n, err := unix.Pread(fd, want[got:], s.Off+int64(got))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("read: %w", err)
		case n == 0:
			return 0, fmt.Errorf("%w: it is %d bytes shorter", ErrChanged, s.Len-int64(got))
		}
		got += max(n, 0)
	}
	return len(want), nil
}

func checkUnchanged(fd int, before *unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size != before.Size {
		return fmt.Errorf("%w: it had %d bytes and has %d", ErrChanged, before.Size, st.Size)
	}
	if st.Mtim != before.Mtim {
		return fmt.Errorf("%w: it was written to", ErrChanged)
	}
	return nil
}

// findHoles sets e.Sparse if the filesystem has left out something of the file, and it
// has that many zeros: then where its blocks of zeros are.
func (p *packer) findHoles(fd int, e *tarstream.Entry) error {
	if e.Size < worthHoles {
		return nil
	}
	hole, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	if err != nil || hole >= e.Size {
		return nil // a filesystem that cannot tell has no holes for us
	}
	segments := []tarstream.Segment{}
	for end := int64(0); end < e.Size; {
		start, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // no more data
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		hole, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		// Whole blocks. The one where two stretches meet is looked at once.
		start = max(end, start/sparseBlock*sparseBlock)
		end = min(e.Size, (hole+sparseBlock-1)/sparseBlock*sparseBlock)
		if segments, err = p.appendData(segments, fd, start, end); err != nil {
			return err
		}
	}
	if len(segments) > tarstream.MaxSegments {
		return nil // no reader would take such a list
	}
	zeros := e.Size
	for _, s := range segments {
		zeros -= s.Len
	}
	if zeros >= worthHoles {
		e.Sparse = segments
	}
	return nil
}

var zeros [sparseBlock]byte

// appendData appends the blocks between start and end that are not all zeros.
func (p *packer) appendData(to []tarstream.Segment, fd int, start, end int64) ([]tarstream.Segment, error) {
	for start < end {
		n, err := p.readAt(fd, tarstream.Segment{Off: start, Len: end - start})
		if err != nil {
			return nil, err
		}
		for b := range slices.Chunk(p.buf[:n], sparseBlock) {
			if !bytes.Equal(b, zeros[:len(b)]) {
				if i := len(to) - 1; i >= 0 && to[i].Off+to[i].Len == start {
					to[i].Len += int64(len(b))
				} else {
					to = append(to, tarstream.Segment{Off: start, Len: int64(len(b))})
				}
			}
			start += int64(len(b))
		}
	}
	return to, nil
}
