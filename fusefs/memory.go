package fusefs

import (
	"bytes"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ihucos/plash/fusefs/union"
)

const (
	// maxMapped is how much of the index, and of the program, may be in the memory of
	// the process, in bytes. The kernel keeps the pages anyway while it has room for
	// them; to map one again costs less than a request.
	maxMapped = 20 << 20
	// checkEvery is after how many requests that is looked at.
	checkEvery = 512
)

// A memoryLimit keeps the server small while it serves a large index.
type memoryLimit struct {
	requests atomic.Uint32
	unload   func()                  // takes the index out of memory
	statm    atomic.Pointer[os.File] // nil: no limit, which is no reason not to serve
}

// settleAfter is when a server begins to keep itself small: not while someone waits for
// its first answers. It has a few MB until then.
const settleAfter = time.Second

// start begins to look at the memory of this process. What opening the index has
// brought in is let go of.
func (m *memoryLimit) start() {
	if statm, err := os.Open("/proc/self/statm"); err == nil {
		m.statm.Store(statm)
	}
	m.unload()
}

// A limitedUnion counts the requests of a union that look at the index.
type limitedUnion struct {
	*union.FS
	memory *memoryLimit
}

func (l limitedUnion) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	l.memory.count()
	return l.FS.Lookup(cancel, header, name, out)
}

func (l limitedUnion) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	l.memory.count()
	return l.FS.GetAttr(cancel, in, out)
}

func (l limitedUnion) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	l.memory.count()
	return l.FS.Open(cancel, in, out)
}

func (l limitedUnion) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	l.memory.count()
	return l.FS.Read(cancel, in, buf)
}

func (l limitedUnion) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	l.memory.count()
	return l.FS.ReadDirPlus(cancel, in, out)
}

// count counts a request.
func (m *memoryLimit) count() {
	if m.requests.Add(1)%checkEvery != 0 {
		return
	}
	if statm := m.statm.Load(); statm != nil && mappedBytes(statm) >= maxMapped {
		m.unload()
	}
}

// mappedBytes is how many bytes of files are mapped and in memory: proc_pid_statm(5), the
// third number, in pages.
func mappedBytes(statm *os.File) int {
	var buf [128]byte
	n, err := statm.ReadAt(buf[:], 0)
	fields := bytes.Fields(buf[:n])
	if err != nil && n == 0 || len(fields) < 3 {
		return 0
	}
	pages, err := strconv.Atoi(string(fields[2]))
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}
