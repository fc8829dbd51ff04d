package posixtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FullFixture makes what [RunFull] starts from, in a directory that becomes the lower
// layer.
func FullFixture(tb testing.TB, dir string) {
	tb.Helper()
	e := &env{TB: tb, dir: dir}
	e.write("large", pattern(4<<20))
	e.write("small", "content")
}

// RunFull fills a filesystem on which 2 to 4 MiB can be written, above the files of
// [FullFixture]: that fails with ENOSPC, nothing else does, and nothing is lost.
func RunFull(t *testing.T, dir string) {
	t.Helper()
	e := &env{TB: &recorder{TB: t}, dir: dir, o: &Options{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer e.end()
		e.full()
	}()
	<-done
	if failures := e.TB.(*recorder).failures; len(failures) > 0 {
		t.Error(strings.Join(failures, "\n"))
	}
}

func (e *env) full() {
	// A file that is larger than the space cannot be copied up, and stays as it is.
	fd, err := unix.Open(e.at("large"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil { // it may be copied up by parts
		e.fds = append(e.fds, fd)
		for off := int64(0); err == nil && off < 4<<20; off += 4096 {
			_, err = unix.Pwrite(fd, []byte(pattern(4096)), off)
		}
		err = firstError(err, unix.Fsync(fd))
	}
	e.fails("write to a large file", err, unix.ENOSPC)
	e.size("large", 4<<20)
	e.names(".", "large", "small")

	out := e.open("filler", unix.O_CREAT|unix.O_RDWR)
	written := int64(0)
	for piece := pattern(64 << 10); written < 8<<20; {
		n, err := unix.Pwrite(out, []byte(piece), written)
		written += int64(max(n, 0))
		if err = firstError(err, unix.Fdatasync(out)); err != nil {
			e.fails("write", err, unix.ENOSPC)
			break
		}
	}
	if written >= 8<<20 {
		e.Fatal("8 MiB could be written")
	}
	e.fails("allocate", unix.Fallocate(out, 0, written, 8<<20), unix.ENOSPC)
	want := strings.Repeat(pattern(64<<10), int(written>>16)+1)[:written]
	equal(e, "what was written", e.pread(out, 8<<20, 0)[:written], want)
	e.content("small", "content")
	for i := range 3 {
		err := os.WriteFile(filepath.Join(e.dir, fmt.Sprint("new ", i)), []byte("x"), 0o644)
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			e.Errorf("create: %v", err)
		}
	}
	// Removing makes room, on overlayfs also for the marks that something is removed.
	e.remove("filler")
	e.close(out)
	e.write("small", "other")
	e.content("small", "other")
	e.write("after", strings.Repeat("x", 1<<20))
	e.size("after", 1<<20)
	e.remove("large")
	e.absent("large")
}
