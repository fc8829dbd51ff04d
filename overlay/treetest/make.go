package treetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Options say what a tree has.
type Options struct {
	Entries int  // about how many entries; 0 means 300
	Plain   bool // no devices, no attributes but user.*, all files of the caller
}

// Make fills dir, which exists and is empty, with a random tree: names that are no
// UTF-8 or 255 bytes long, deep directories, all types of files but sockets, hard
// links to all of them, holes, times to the nanosecond, and as root all kinds of
// owners, modes, extended attributes and access control lists. The same seed and
// options give the same tree.
func Make(tb testing.TB, dir string, seed uint64, o Options) {
	tb.Helper()
	if o.Entries == 0 {
		o.Entries = 300
	}
	g := newGenerator(tb, seed, o)
	g.left = o.Entries
	for g.left > 0 {
		g.fill(dir, 0)
	}
	g.special(dir)
	g.attrs(dir, unix.S_IFDIR)
	g.times()
}

type generator struct {
	tb    testing.TB
	r     *rand.Rand
	o     Options
	left  int
	files []string // what hard links can be made to
	dirs  []string // with their times, to be set last, deepest last
}

func newGenerator(tb testing.TB, seed uint64, o Options) *generator {
	return &generator{tb: tb, r: rand.New(rand.NewPCG(seed, 0x706c617368)), o: o}
}

func (g *generator) check(err error) {
	g.tb.Helper()
	if err != nil {
		g.tb.Fatalf("make random tree: %v", err)
	}
}

func pick[T any](g *generator, of ...T) T { return of[g.r.IntN(len(of))] }

// fill makes some entries in dir, and in directories there.
func (g *generator) fill(dir string, depth int) {
	for range 3 + g.r.IntN(12) {
		if g.left <= 0 {
			return
		}
		g.left--
		path := filepath.Join(dir, g.name())
		if _, err := os.Lstat(path); err == nil || len(path) > 3500 {
			continue
		}
		if k := g.r.IntN(10); k < 3 && depth < 12 {
			g.check(os.Mkdir(path, 0o700))
			if k > 0 { // else it stays empty
				g.fill(path, depth+1)
			}
			g.attrs(path, unix.S_IFDIR)
		} else {
			g.leaf(path)
		}
	}
}

// leaf makes anything but a directory.
func (g *generator) leaf(path string) {
	switch k := g.r.IntN(20); {
	case k == 0 && len(g.files) > 0:
		if old := pick(g, g.files...); os.Link(old, path) != nil {
			return // gone, or another filesystem for all we know
		}
		g.files = append(g.files, path)
		return
	case k < 4:
		g.check(os.Symlink(g.target(), path))
		g.attrs(path, unix.S_IFLNK)
	case k == 4 && !g.o.Plain:
		dev := pick(g, unix.Mkdev(1, 3), unix.Mkdev(4095, 1048575), unix.Mkdev(7, 300))
		typ := pick[uint32](g, unix.S_IFCHR, unix.S_IFBLK)
		g.check(unix.Mknod(path, typ|0o600, int(dev)))
		g.attrs(path, typ)
	case k == 5:
		g.check(unix.Mkfifo(path, 0o600))
		g.attrs(path, unix.S_IFIFO)
	default:
		g.content(path)
		g.attrs(path, unix.S_IFREG)
	}
	g.files = append(g.files, path)
}

// special makes what chance may leave out.
func (g *generator) special(dir string) {
	deep := dir
	for range 13 {
		deep = filepath.Join(deep, strings.Repeat("d", 200))
		g.check(os.Mkdir(deep, 0o700))
		g.attrs(deep, unix.S_IFDIR)
	}
	deep = filepath.Join(deep, "f")
	g.content(deep)
	g.attrs(deep, unix.S_IFREG)
	many := filepath.Join(dir, "many levels")
	for range 150 {
		g.check(os.Mkdir(many, 0o755))
		g.attrs(many, unix.S_IFDIR)
		many = filepath.Join(many, "d")
	}
	g.content(many)
	g.attrs(many, unix.S_IFREG)
	long := filepath.Join(dir, strings.Repeat("\xff\xfe", 127)+"x")
	g.content(long)
	g.attrs(long, unix.S_IFREG)
	g.check(os.Link(long, filepath.Join(dir, "0 link to a long name")))
	symlink := filepath.Join(dir, "long symlink")
	g.check(os.Symlink(strings.Repeat("t/", 1500)+"x", symlink))
	g.attrs(symlink, unix.S_IFLNK)
	g.hole(filepath.Join(dir, "a-b"), 0) // sorts between "a" and "a/b" as a path
	for _, d := range []string{"a", "a/b"} {
		g.check(os.Mkdir(filepath.Join(dir, d), 0o700))
		g.attrs(filepath.Join(dir, d), unix.S_IFDIR)
	}
	g.hole(filepath.Join(dir, "hole only"), 1<<20)
	g.hole(filepath.Join(dir, "data at end"), 300<<10, 300<<10-100)
	g.hole(filepath.Join(dir, "data at start"), 100<<10+17, 0)
	g.hole(filepath.Join(dir, "data between"), 500<<10, 4096*7, 4096*9+1, 200<<10-1, 300<<10)
}

func (g *generator) hole(path string, size int64, at ...int64) {
	f, err := os.Create(path)
	g.check(err)
	g.check(f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte("data"), off)
		g.check(err)
	}
	g.check(f.Close())
	g.attrs(path, unix.S_IFREG)
}

func (g *generator) name() string {
	if g.r.IntN(3) > 0 {
		return pick(g, "a", "b", "lib", "usr", "etc", "x") + fmt.Sprint(g.r.IntN(1000))
	}
	return pick(g,
		" ", "-", "...", ".hidden", ".wh", "wh.x", "a b", "a\nb", "tab\t", "comma,", "colon:", `back\slash`, `"`, "%",
		"ü", "日本", "\xff\xfe", "a\xc3", "~", "*", "con", "$x", "=", "PaxHeaders.0", "@LongLink",
		strings.Repeat("n", 101), strings.Repeat("ä", 120), strings.Repeat("m", 255))
}

func (g *generator) target() string {
	return pick(g, "x", "/etc/passwd", "../../..", "a b\n", "\xff", "..", strings.Repeat("l", 100),
		strings.Repeat("l", 101), strings.Repeat("p/", 300))
}

// content makes a regular file.
func (g *generator) content(path string) {
	size := pick(g, 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, g.r.IntN(20000), g.r.IntN(100000))
	b := make([]byte, size)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], g.r.Uint64())
	}
	if g.r.IntN(8) > 0 {
		g.check(os.WriteFile(path, b, 0o600))
		return
	}
	// A sparse one: some stretches of it, anywhere.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	g.check(err)
	g.check(f.Truncate(int64(g.r.IntN(200 << 10))))
	for range g.r.IntN(5) {
		_, err := f.WriteAt(b[:min(len(b), 9000)], int64(g.r.IntN(400<<10)))
		g.check(err)
	}
	g.check(f.Close())
}

// attrs gives an entry random owner, mode, attributes and time.
func (g *generator) attrs(path string, typ uint32) {
	if !g.o.Plain {
		owner := []int{0, 0, 1, 1000, 65534, 100000, 1<<32 - 2}
		g.check(os.Lchown(path, pick(g, owner...), pick(g, owner...)))
	}
	if typ != unix.S_IFLNK {
		mode := pick[uint32](g, 0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0, 0o777, uint32(g.r.IntN(0o10000)))
		if g.o.Plain {
			mode |= 0o600
			if typ == unix.S_IFDIR {
				mode |= 0o700
			}
		}
		g.check(unix.Chmod(path, mode))
	}
	g.xattrs(path, typ)
	if typ == unix.S_IFDIR {
		g.dirs = append(g.dirs, path) // its time changes as long as something is made in it
		return
	}
	g.time(path)
}

func (g *generator) times() {
	for _, d := range g.dirs {
		g.time(d)
	}
}

func (g *generator) time(path string) {
	sec := pick[int64](g, 0, 1, -1, -86400*365, 1700000000, 1<<31+5, 253402300, g.r.Int64N(2e9))
	nsec := pick[int64](g, 0, 1, 999999999, 500000000, g.r.Int64N(1e9))
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
	g.check(unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
}

func (g *generator) xattrs(path string, typ uint32) {
	set := func(name string, value []byte) { g.check(unix.Lsetxattr(path, name, value, 0)) }
	file := typ == unix.S_IFREG || typ == unix.S_IFDIR
	if file && g.r.IntN(6) == 0 {
		set(pick(g, "user.x", "user.mime_type", "user.ü=1", "user."+strings.Repeat("k", 200)),
			pick(g, []byte{}, []byte("v"), []byte("\x00\xff\n"), bytes.Repeat([]byte("v"), 1000)))
	}
	if g.o.Plain {
		return
	}
	if g.r.IntN(12) == 0 {
		set("trusted.plash", []byte("t"))
	}
	if typ == unix.S_IFREG && g.r.IntN(12) == 0 {
		// struct vfs_cap_data, version 2: magic with the "effective" bit, permitted
		// and inheritable, twice.
		set("security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	}
	if file && g.r.IntN(10) == 0 {
		set("system.posix_acl_access", acl(g))
	}
	if typ == unix.S_IFDIR && g.r.IntN(10) == 0 {
		set("system.posix_acl_default", acl(g))
	}
}

// acl is an access control list as the kernel takes it (linux/posix_acl_xattr.h):
// version 2, then tag, permissions and id of each entry.
func acl(g *generator) []byte {
	const none = 1<<32 - 1
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag uint16
		id  uint32
	}{{0x01, none}, {0x02, 1000}, {0x02, 2000}, {0x04, none}, {0x08, 100}, {0x10, none}, {0x20, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(g.r.IntN(8)))
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}
