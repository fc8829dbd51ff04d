package fusefs

import (
	"bytes"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// maxPushed is how large programs and libraries are that the kernel gets unasked.
const maxPushed = 4 << 20

// A pusher gives the kernel what it will ask for. That helps who waits for programs to start,
// and costs who reads streams; so there is one only while a run begins.
type pusher struct {
	server *fuse.Server // nil while there is none
	until  time.Time

	mu  sync.Mutex // one file at a time
	buf []byte
}

// Init is told the server at the kernel's first request.
func (fs *filesystem) Init(s *fuse.Server) { fs.pusher.server = s }

// push gives the kernel the rest of a program or a library of which it reads the
// beginning. They are mapped, and of what is mapped the kernel reads 128 KiB around
// each place that is touched, one place after the other: a program's start waits for us some
// thirty times. What the kernel does not get, or does not keep, it will ask for.
func (fs *filesystem) push(node uint64, in erofs.Inode, begin []byte) {
	n := int64(len(begin))
	if in.Size > maxPushed || n >= in.Size || !bytes.HasPrefix(begin, []byte("\x7fELF")) ||
		fs.pusher.server == nil || !time.Now().Before(fs.pusher.until) {
		return
	}
	go func() {
		fs.pusher.mu.Lock()
		defer fs.pusher.mu.Unlock()
		_ = fs.image.ExtentsIn(&in, n, in.Size-n, func(e erofs.Extent) bool {
			return fs.pusher.push(node, e, fs.devices[e.Device].fd)
		})
	}()
}

// push gives an extent, as far as it is in the kernel's cache of the blob: to read it from the
// disk costs those who wait for something else. It tells whether that was all of it.
func (p *pusher) push(node uint64, e erofs.Extent, blob int) bool {
	if p.buf == nil {
		p.buf = make([]byte, maxRequest)
	}
	for done := int64(0); done < e.Len; {
		b := p.buf[:min(maxRequest, e.Len-done)]
		n, err := unix.Preadv2(blob, [][]byte{b}, e.Phys+done, unix.RWF_NOWAIT)
		if err != nil || n < len(b) || !p.server.InodeNotifyStoreCache(node, e.Off+done, b).Ok() {
			return false
		}
		done += int64(n)
	}
	return true
}
