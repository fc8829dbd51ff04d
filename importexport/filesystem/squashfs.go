package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	goruntime "runtime"
	"sync"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// On-disk constants of squashfs 4.0, from fs/squashfs/squashfs_fs.h.
const (
	squashSuper    = 96
	squashMagic    = 0x73717368
	squashBlock    = 1 << squashBlockLog // of file data
	squashBlockLog = 17
	squashMeta     = 8192           // of metadata, before it is compressed
	squashRaw      = 1 << 24        // flag of a data block's size: it is not compressed
	squashMetaRaw  = 1 << 15        // flag of a metadata block's size: it is not compressed
	squashNone     = math.MaxUint32 // no fragment, no attributes
	squashNoTable  = math.MaxUint64 // where a table would begin
	squashNoXattrs = 0x200          // flag of the superblock
	squashMaxIDs   = math.MaxUint16 // different owners
	squashMaxFile  = 1<<63 - 1<<17  // bytes
	squashMaxTime  = math.MaxUint32 // seconds since 1970
	squashRefShift = 16             // of a metadata block's place in a reference
	squashMaxTable = math.MaxUint32 // bytes of inodes, of directories
	squashMaxCount = math.MaxUint32 // inodes
	squashMaxNames = math.MaxUint32 // bytes of a directory
	squashMaxIndex = math.MaxUint16 // entries in its index
	squashGzip     = 1              // compressors
	squashZstd     = 6
)

// Compressions are the ways in which [WriteSquashfs] can compress; the first one is the best
// unless old kernels are to read it: Linux has it since 4.14.
var Compressions = []string{"zstd", "gzip"}

// WriteSquashfs writes a tree as a squashfs image, compressed in one of [Compressions]. The
// format knows times of whole seconds from 1970 to 2106, to which others are held, and
// of extended attributes those of user, trusted and security; lost says that there were
// others (access control lists). The error wraps [ErrLimit] where more than 65,535
// different users and groups own files. The meter, which may be nil, counts the data of files.
func WriteSquashfs(ctx context.Context, v *cas.View, im *output.Image, compression string, m *progress.Meter) (lost bool, err error) {
	j := job{ctx, v, im, m}
	nodes, err := j.readTree()
	if err != nil {
		return false, err
	}
	w := &squashWriter{
		job: j, nodes: nodes, at: squashSuper,
		files: make([]squashFile, len(nodes)), ids: map[uint32]uint16{}, refs: make([]uint64, len(nodes)),
	}
	for i, n := range nodes {
		n.number = uint32(i + 1)
	}
	if int64(len(nodes)) >= squashMaxCount {
		return false, fmt.Errorf("%w: %d inodes", ErrLimit, len(nodes))
	}
	if err := w.setCompression(compression); err != nil {
		return false, err
	}
	if err := w.data(); err != nil {
		return false, err
	}
	if err := w.metadata(); err != nil {
		return false, err
	}
	return w.xattrs.lost, nil
}

type squashWriter struct {
	job
	nodes []*node
	files []squashFile // by node
	at    int64        // where what comes next goes

	compressor uint16
	compress   func(dst, src []byte) []byte // appends; may be used by several at once

	fragments []*squashFragment // each is told its place when it is written
	ids       map[uint32]uint16
	idList    []uint32
	refs      []uint64 // by node: where its inode is
	xattrs    squashXattrs

	inodes, dirs metaWriter
}

// A squashFile is where a file's data is: whole blocks, and the rest in a fragment.
type squashFile struct {
	start    int64
	sizes    []uint32 // of the blocks as they are stored; 0: a hole
	holes    int64    // bytes of them
	fragment uint32
	offset   uint32 // in it
}

// A squashFragment is a block of the ends of several files.
type squashFragment struct {
	start int64
	size  uint32
}

func (w *squashWriter) setCompression(name string) error {
	switch name {
	case "", "zstd":
		// The kernel has room for a window of a block.
		enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithWindowSize(squashBlock),
			zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(goruntime.GOMAXPROCS(0)))
		if err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		w.compressor = squashZstd
		w.compress = func(dst, src []byte) []byte { return enc.EncodeAll(src, dst) }
	case "gzip":
		writers := sync.Pool{New: func() any { return zlib.NewWriter(nil) }}
		w.compressor = squashGzip
		w.compress = func(dst, src []byte) []byte {
			b := bytes.NewBuffer(dst)
			z := writers.Get().(*zlib.Writer)
			defer writers.Put(z)
			z.Reset(b)
			_, _ = z.Write(src) // into memory, which does not fail
			_ = z.Close()
			return b.Bytes()
		}
	default:
		return fmt.Errorf("compression %s: %w", name, errors.ErrUnsupported)
	}
	w.inodes.compress, w.dirs.compress, w.xattrs.pairs.compress = w.compress, w.compress, w.compress
	return nil
}

// A squashJob is a block on its way: it is compressed by any of several workers, and written in
// the order in which the blocks come.
type squashJob struct {
	data   []byte
	packed []byte
	ready  chan struct{}
	stored func(at int64, size uint32) // is told where it is
}

// data writes the content of all files.
func (w *squashWriter) data() error {
	g, ctx := errgroup.WithContext(w.ctx)
	workers := goruntime.GOMAXPROCS(0)
	work, order := make(chan *squashJob), make(chan *squashJob, 4*workers)
	buffers := &sync.Pool{New: func() any { b := make([]byte, squashBlock); return &b }}
	g.Go(func() error {
		defer close(order)
		defer close(work)
		p := &squashPacker{w: w, buffers: buffers, put: func(j *squashJob) error {
			for _, c := range []chan *squashJob{order, work} {
				select {
				case c <- j:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return nil
		}}
		return p.all()
	})
	for range workers {
		g.Go(func() error {
			for j := range work {
				j.packed = w.compress(j.packed[:0], j.data)
				close(j.ready)
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range order {
			select {
			case <-j.ready:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := w.store(j); err != nil {
				return err
			}
			data := j.data[:cap(j.data)]
			buffers.Put(&data)
		}
		return nil
	})
	return g.Wait()
}

// store writes a block, compressed if that makes it smaller.
func (w *squashWriter) store(j *squashJob) error {
	b, size := j.packed, uint32(len(j.packed))
	if len(b) >= len(j.data) {
		b, size = j.data, uint32(len(j.data))|squashRaw
	}
	if _, err := w.im.WriteAt(b, w.at); err != nil {
		return err
	}
	j.stored(w.at, size)
	w.at += int64(len(b))
	return nil
}

// A squashPacker cuts files into blocks and gathers what is left of them in fragments.
type squashPacker struct {
	w        *squashWriter
	buffers  *sync.Pool
	put      func(*squashJob) error
	fragment []byte // that is being filled
}

func (p *squashPacker) buffer() []byte { return *p.buffers.Get().(*[]byte) }

func (p *squashPacker) all() error {
	for i, n := range p.w.nodes {
		p.w.files[i].fragment = squashNone
		if n.IsRegular() && n.Size > 0 {
			if err := p.file(n, &p.w.files[i]); err != nil {
				return fmt.Errorf("/%s: %w", n.path, err)
			}
		}
	}
	return p.flush()
}

func (p *squashPacker) file(n *node, f *squashFile) error {
	if n.Size > squashMaxFile || n.Size>>squashBlockLog > math.MaxInt32 {
		return fmt.Errorf("%w: a file of %d bytes", ErrLimit, n.Size)
	}
	runs, err := runsOf(p.w.view, &n.Inode)
	if err != nil {
		return err
	}
	whole := n.Size >> squashBlockLog
	f.sizes = make([]uint32, whole)
	for i := range whole {
		// Blocks in holes cost nothing, however many there are.
		first := i << (squashBlockLog - blockBits)
		for len(runs) > 0 && runs[0].first+runs[0].n <= first {
			runs = runs[1:]
		}
		if len(runs) == 0 || runs[0].first >= first+1<<(squashBlockLog-blockBits) {
			f.holes += squashBlock
			continue
		}
		if err := p.block(n, f, i); err != nil {
			return err
		}
	}
	return p.tail(n, f, whole<<squashBlockLog)
}

// block sends block i of a file on its way.
func (p *squashPacker) block(n *node, f *squashFile, i int64) error {
	b := p.buffer()
	if err := p.w.readRange(&n.Inode, b, i<<squashBlockLog); err != nil {
		return err
	}
	if allZero(b) {
		f.holes += squashBlock
		p.buffers.Put(&b)
		return nil
	}
	return p.put(&squashJob{data: b, ready: make(chan struct{}), stored: func(at int64, size uint32) {
		if f.start == 0 {
			f.start = at
		}
		f.sizes[i] = size
	}})
}

// tail puts the end of a file, which is no whole block, into the fragment.
func (p *squashPacker) tail(n *node, f *squashFile, off int64) error {
	size := int(n.Size - off)
	if size == 0 {
		return nil
	}
	if len(p.fragment)+size > squashBlock {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if p.fragment == nil {
		p.fragment = p.buffer()[:0]
	}
	f.fragment, f.offset = uint32(len(p.w.fragments)), uint32(len(p.fragment))
	p.fragment = p.fragment[:len(p.fragment)+size]
	return p.w.readRange(&n.Inode, p.fragment[f.offset:], off)
}

// flush sends the fragment on its way.
func (p *squashPacker) flush() error {
	if len(p.fragment) == 0 {
		return nil
	}
	f := &squashFragment{}
	p.w.fragments = append(p.w.fragments, f)
	b := p.fragment
	p.fragment = nil
	return p.put(&squashJob{data: b, ready: make(chan struct{}), stored: func(at int64, size uint32) {
		f.start, f.size = at, size
	}})
}

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroPage))
		if !bytes.Equal(b[:n], zeroPage[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeroPage [4096]byte
