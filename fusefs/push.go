package fusefs

import (
	"bytes"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ihucos/plash/cas/erofs"
)

// maxPushed is how large programs and libraries are that the kernel gets unasked.
const maxPushed = 4 << 20

// Init is told the server at the kernel's first request.
func (fs *filesystem) Init(s *fuse.Server) { fs.server = s }

// push gives the kernel the rest of a program or a library of which it has read the
// beginning. They are mapped, and of what is mapped the kernel reads 128 KiB around
// each place that is touched, one place after the other: a program's start waits for us some
// thirty times.
func (fs *filesystem) push(node uint64, in erofs.Inode, begin []byte) {
	if fs.server == nil || in.Size > maxPushed || int64(len(begin)) >= in.Size || !bytes.HasPrefix(begin, []byte("\x7fELF")) {
		return
	}
	from := int64(len(begin))
	go func() {
		buf := make([]byte, maxRequest)
		for off := from; off < in.Size; off += maxRequest {
			b := buf[:min(maxRequest, in.Size-off)]
			// What cannot be read, or kept, will be asked for.
			if fs.readAt(&in, b, off) != nil || !fs.server.InodeNotifyStoreCache(node, off, b).Ok() {
				return
			}
		}
	}()
}
