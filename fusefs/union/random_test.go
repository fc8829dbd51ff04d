package union

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

// Variables that make TestRandomOperations longer (a Go duration), or repeat a run that failed.
const (
	randomTime = "PLASH_RANDOM_TIME"
	randomSeed = "PLASH_RANDOM_SEED"
)

// TestRandomOperations does random operations to the union and to a directory of the filesystem
// below, which is the model: each gives the same result on both, and in the end the trees
// are the same. It takes two minutes; its seeds are told, and one of them repeats a failure.
func TestRandomOperations(t *testing.T) {
	needRoot(t)
	long := 2 * time.Minute
	if testing.Short() {
		long = 3 * time.Second
	}
	if text := os.Getenv(randomTime); text != "" {
		var err error
		long, err = time.ParseDuration(text)
		must(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(randomSeed); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
		long = 0
	}
	end := time.Now().Add(long)
	names := []string{"passthrough", "writeback", "xattr whiteouts"}
	for first := true; first || time.Now().Before(end); seed++ {
		first = false
		form := names[seed%uint64(len(names))]
		if !t.Run(fmt.Sprintf("%s %d", form, seed), func(t *testing.T) {
			t.Logf("%s=%d repeats this", randomSeed, seed)
			newTwins(t, seed, forms[form]).play(1500)
		}) {
			return
		}
	}
}

// twins are a union and its model.
type twins struct {
	*mounted
	model string
	r     *rand.Rand
	open  []pair
	log   []string // the last operations
}

// A pair is a file that is open on both.
type pair struct{ union, model int }

func newTwins(t *testing.T, seed uint64, o Options) *twins {
	raw, plain, model := t.TempDir(), t.TempDir(), t.TempDir()
	treetest.Make(t, raw, seed, treetest.Options{})
	copyTree(t, raw, plain) // tar does not keep all hard links
	copyTree(t, plain, model)
	w := &twins{mounted: newUnion(t, plain, o), model: model, r: rand.New(rand.NewPCG(seed, 7))}
	for _, dir := range []string{"", "a", "a/b", "c"} {
		for _, at := range []string{w.dir, model} {
			must(t, os.MkdirAll(filepath.Join(at, "play", dir), 0o755))
		}
	}
	return w
}

// play does n operations, mounts the union again now and then, and compares the trees.
func (w *twins) play(n int) {
	defer func() {
		if w.tb.Failed() {
			for _, line := range w.log {
				w.tb.Log(line)
			}
		}
	}()
	for i := range n {
		w.step()
		if w.tb.(*testing.T).Failed() {
			return
		}
		if i%500 == 499 {
			w.closeAll()
			same(w.tb, "the tree", dumpOld(w.tb, w.model), dumpOld(w.tb, w.dir))
			w.remount()
			same(w.tb, "the tree mounted again", dumpOld(w.tb, w.model), dumpOld(w.tb, w.dir))
		}
	}
}

func (w *twins) closeAll() {
	for _, p := range w.open {
		must(w.tb, errors.Join(unix.Close(p.union), unix.Close(p.model)))
	}
	w.open = nil
}

// name is a path, mostly of the few that operations meet at, else one of the lower tree.
func (w *twins) name() string {
	dirs := []string{"play", "play/a", "play/a/b", "play/c", "play/new"}
	if w.r.IntN(8) == 0 {
		if found, err := filepath.Glob(filepath.Join(w.model, "*")); err == nil && len(found) > 0 {
			slices.Sort(found)
			rel, err := filepath.Rel(w.model, found[w.r.IntN(len(found))])
			must(w.tb, err)
			return rel
		}
	}
	return dirs[w.r.IntN(len(dirs))] + "/" + string(rune('f'+w.r.IntN(6)))
}

// both does one thing to both and compares how it ended, and what it gave.
func (w *twins) both(what string, f func(root string) (string, error)) error {
	want, wantErr := f(w.model)
	got, gotErr := f(w.dir)
	w.log = append(w.log, fmt.Sprintf("%s: %q, %v", what, short(want), wantErr))
	w.log = w.log[max(0, len(w.log)-40):]
	if !errors.Is(gotErr, errnoOf(wantErr)) || got != want {
		w.tb.Errorf("%s: %q, %v; on the model %q, %v", what, short(got), gotErr, short(want), wantErr)
	}
	return wantErr
}

func short(s string) string { return s[:min(len(s), 100)] }

// errnoOf is the number of an error; nil for none.
func errnoOf(err error) error {
	var n unix.Errno
	if errors.As(err, &n) {
		return n
	}
	return nil
}

func (w *twins) step() {
	a, b := w.name(), w.name()
	mode := []uint32{0o600, 0o644, 0o4755, 0o2755, 0o777, 0}[w.r.IntN(6)]
	size, off := w.r.Int64N(70000), w.r.Int64N(70000)
	data := bytes.Repeat([]byte{byte('A' + w.r.IntN(26))}, int(w.r.Int64N(5000)))
	plain := func(f func(at string) error) func(string) (string, error) {
		return func(root string) (string, error) { return "", f(root) }
	}
	at := func(root, name string) string { return filepath.Join(root, name) }
	switch n := w.r.IntN(26); n {
	case 0, 1, 2:
		flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK |
			[]int{unix.O_CREAT, unix.O_CREAT | unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, 0}[w.r.IntN(5)]
		w.openBoth(a, flags, mode)
	case 3, 4, 5, 6:
		w.onOpen(n, off, size, data)
	case 7:
		_ = w.both("mkdir "+a, plain(func(r string) error { return unix.Mkdir(at(r, a), mode|0o700) }))
	case 8:
		_ = w.both("rmdir "+a, plain(func(r string) error { return unix.Rmdir(at(r, a)) }))
	case 9, 10:
		_ = w.both("unlink "+a, plain(func(r string) error { return unix.Unlink(at(r, a)) }))
	case 11, 12, 13:
		w.renameBoth(a, b, uint([]int{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[w.r.IntN(4)]))
	case 14:
		_ = w.both("link "+a+" "+b, plain(func(r string) error { return unix.Link(at(r, a), at(r, b)) }))
	case 15:
		_ = w.both("symlink "+a, plain(func(r string) error { return unix.Symlink(b, at(r, a)) }))
	case 16:
		_ = w.both("chmod "+a, plain(func(r string) error { return unix.Fchmodat(unix.AT_FDCWD, at(r, a), mode, unix.AT_SYMLINK_NOFOLLOW) }))
	case 17:
		uid := w.r.IntN(5)
		_ = w.both("lchown "+a, plain(func(r string) error { return unix.Lchown(at(r, a), uid, -1) }))
	case 18:
		times := []unix.Timespec{{Sec: size}, {Sec: off, Nsec: 5}}
		_ = w.both("utimens "+a, plain(func(r string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, at(r, a), times, unix.AT_SYMLINK_NOFOLLOW)
		}))
	case 19:
		_ = w.both("setxattr "+a, plain(func(r string) error {
			return unix.Lsetxattr(at(r, a), "user.x"+b[len(b)-1:], data[:min(len(data), 200)], 0)
		}))
	case 20:
		_ = w.both("removexattr "+a, plain(func(r string) error { return unix.Lremovexattr(at(r, a), "user.x"+b[len(b)-1:]) }))
	case 21:
		_ = w.both("mkfifo "+a, plain(func(r string) error { return unix.Mkfifo(at(r, a), mode) }))
	case 22:
		_ = w.both("truncate "+a, func(r string) (string, error) {
			var st unix.Stat_t
			if err := unix.Lstat(at(r, a), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
				return "", unix.EINVAL
			}
			return "", unix.Truncate(at(r, a), size)
		})
	case 23:
		_ = w.both("readlink "+a, func(r string) (string, error) {
			buf := make([]byte, 4096)
			n, err := unix.Readlink(at(r, a), buf)
			return string(buf[:max(n, 0)]), err
		})
	case 24:
		_ = w.both("list "+a, func(r string) (string, error) {
			entries, err := os.ReadDir(at(r, filepath.Dir(a)))
			text := ""
			for _, e := range entries {
				text += fmt.Sprintln(e.Name(), e.Type())
			}
			return text, err
		})
	case 25:
		_ = w.both("stat "+a, func(r string) (string, error) {
			var st unix.Stat_t
			err := unix.Lstat(at(r, a), &st)
			return describe(&st), err
		})
	}
}

// describe is what stat(2) says of a file on both, but for times that operations leave.
func describe(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	}
	return fmt.Sprintf("%o %d:%d %d links, %d bytes", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size)
}

func (w *twins) openBoth(name string, flags int, mode uint32) {
	var p pair
	err := w.both(fmt.Sprintf("open %s %#x", name, flags), func(root string) (string, error) {
		path := filepath.Join(root, name)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			return "", unix.EISDIR // a FIFO or a device is not the union's business
		}
		fd, err := unix.Open(path, flags, mode)
		if root == w.model {
			p.model = fd
		} else {
			p.union = fd
		}
		return "", err
	})
	if err != nil || w.tb.Failed() {
		return
	}
	w.open = append(w.open, p)
	if len(w.open) > 8 {
		p, w.open = w.open[0], w.open[1:]
		must(w.tb, errors.Join(unix.Close(p.union), unix.Close(p.model)))
	}
}

// onOpen does something with a file that is open, whether it has a name or not.
func (w *twins) onOpen(n int, off, size int64, data []byte) {
	if len(w.open) == 0 {
		return
	}
	p := w.open[w.r.IntN(len(w.open))]
	fd := func(root string) int {
		if root == w.model {
			return p.model
		}
		return p.union
	}
	switch n {
	case 3:
		_ = w.both("pwrite", func(r string) (string, error) {
			n, err := unix.Pwrite(fd(r), data, off)
			return fmt.Sprint(n), err
		})
	case 4:
		_ = w.both("pread", func(r string) (string, error) {
			buf := make([]byte, 9000)
			n, err := unix.Pread(fd(r), buf, off)
			return string(buf[:max(n, 0)]), err
		})
	case 5:
		_ = w.both("ftruncate", func(r string) (string, error) { return "", unix.Ftruncate(fd(r), size) })
	case 6:
		_ = w.both("fstat", func(r string) (string, error) {
			var st unix.Stat_t
			err := unix.Fstat(fd(r), &st)
			return describe(&st), err
		})
	}
}

// renameBoth renames. A directory of the layers stays where it is (EXDEV), as with overlayfs.
func (w *twins) renameBoth(from, to string, flags uint) {
	err := unix.Renameat2(unix.AT_FDCWD, w.at(from), unix.AT_FDCWD, w.at(to), flags)
	w.log = append(w.log, fmt.Sprintf("rename %s %s %#x: %v", from, to, flags, err))
	if errors.Is(err, unix.EXDEV) {
		return
	}
	onModel := unix.Renameat2(unix.AT_FDCWD, filepath.Join(w.model, from), unix.AT_FDCWD, filepath.Join(w.model, to), flags)
	if !errors.Is(err, errnoOf(onModel)) {
		w.tb.Errorf("rename %s to %s, flags %#x: %v; on the model %v", from, to, flags, err, onModel)
	}
}
