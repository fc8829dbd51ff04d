package posixtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// workers run at the same time, each with its number.
func (e *env) workers(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// complain is check for workers, which go on.
func (e *env) complain(err error) {
	if err != nil {
		e.Error(err)
	}
}

func concurrentCases() []testCase {
	const n = 8
	return []testCase{
		{name: "new files", make: func(e *env) { e.mkdir("dir"); e.write("dir/old", "old") }, run: func(e *env) {
			want := []string{"old"}
			for i := range n * 100 {
				want = append(want, fmt.Sprint(i))
			}
			e.workers(n, func(i int) {
				for j := range 100 {
					name := fmt.Sprint(i*100 + j)
					e.complain(os.WriteFile(e.at("dir/"+name), []byte(name), 0o644))
				}
			})
			e.names("dir", want...)
			for _, name := range want[1:] {
				e.content("dir/"+name, name)
			}
		}},
		{name: "one of many makes it", make: func(e *env) { e.write("gone 0", "") }, run: func(e *env) {
			e.remove("gone 0")
			for round := range 20 {
				var files, dirs, links atomic.Int32
				e.workers(n, func(int) {
					fd, err := unix.Open(e.at(fmt.Sprint("gone ", round)), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
					if err == nil {
						files.Add(1)
						e.complain(unix.Close(fd))
					}
					if unix.Mkdir(e.at(fmt.Sprint("dir ", round)), 0o755) == nil {
						dirs.Add(1)
					}
					if unix.Symlink("x", e.at(fmt.Sprint("link ", round))) == nil {
						links.Add(1)
					}
				})
				equal(e, "who made the file", files.Load(), 1)
				equal(e, "who made the directory", dirs.Load(), 1)
				equal(e, "who made the link", links.Load(), 1)
			}
		}},
		{name: "one of many removes it", make: func(e *env) {
			for i := range 50 {
				e.write(fmt.Sprint(i), "")
			}
		}, run: func(e *env) {
			var removed atomic.Int32
			e.workers(n, func(int) {
				for i := range 50 {
					if unix.Unlink(e.at(fmt.Sprint(i))) == nil {
						removed.Add(1)
					}
				}
			})
			equal(e, "removed", removed.Load(), 50)
			e.names(".")
		}},
		{name: "append", make: func(e *env) { e.write("file", "first line\n") }, run: func(e *env) {
			e.workers(n, func(i int) {
				f, err := os.OpenFile(e.at("file"), os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					e.Error(err)
					return
				}
				for j := range 100 {
					_, err := fmt.Fprintf(f, "worker %d line %d\n", i, j)
					e.complain(err)
				}
				e.complain(f.Close())
			})
			b, err := os.ReadFile(e.at("file"))
			e.check(err)
			lines := map[string]int{}
			for line := range strings.Lines(string(b)) {
				lines[line]++
			}
			equal(e, "number of lines", len(lines), n*100+1)
		}},
		{name: "write to parts", make: func(e *env) { e.write("file", strings.Repeat(".", 512*kib)) }, run: func(e *env) {
			e.workers(n, func(i int) {
				f, err := os.OpenFile(e.at("file"), os.O_RDWR, 0)
				if err != nil {
					e.Error(err)
					return
				}
				for j := i; j < 512; j += n {
					_, err := f.WriteAt([]byte(strings.Repeat(string(rune('a'+i)), kib)), int64(j)*kib)
					e.complain(err)
				}
				e.complain(f.Close())
			})
			var want strings.Builder
			for j := range 512 {
				want.WriteString(strings.Repeat(string(rune('a'+j%n)), kib))
			}
			e.content("file", want.String())
		}},
		{name: "first write", make: func(e *env) {
			for i := range 30 {
				e.write(fmt.Sprint(i), "..........")
			}
		}, run: func(e *env) {
			// All copy the same file up.
			e.workers(n, func(i int) {
				for j := range 30 {
					f, err := os.OpenFile(e.at(fmt.Sprint(j)), os.O_WRONLY, 0)
					if err != nil {
						e.Error(err)
						continue
					}
					_, err = f.WriteAt([]byte{byte('0' + i)}, int64(i))
					e.complain(errors.Join(err, f.Close()))
				}
			})
			for j := range 30 {
				e.content(fmt.Sprint(j), "01234567..")
			}
		}},
		{name: "replace while others read", make: func(e *env) { e.write("file", strings.Repeat("0", 5000)) }, run: func(e *env) {
			var done atomic.Bool
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for !done.Load() {
						b, err := os.ReadFile(e.at("file"))
						if err != nil || len(b) != 5000 || strings.Trim(string(b), string(b[:1])) != "" {
							e.Errorf("read %d bytes, not all the same: %v", len(b), err)
							return
						}
					}
				})
			}
			for i := range 100 {
				e.write("new", strings.Repeat(fmt.Sprint(i%10), 5000))
				e.rename("new", "file")
			}
			done.Store(true)
			wg.Wait()
		}},
		{name: "rename to and fro", make: func(e *env) {
			e.mkdir("a", "b")
			for i := range n {
				e.write(fmt.Sprintf("a/%d", i), fmt.Sprint(i))
			}
		}, run: func(e *env) {
			e.workers(n, func(i int) {
				a, b := fmt.Sprintf("a/%d", i), fmt.Sprintf("b/%d", i)
				for range 50 {
					e.complain(os.Rename(e.at(a), e.at(b)))
					e.complain(os.Rename(e.at(b), e.at(a)))
				}
			})
			e.names("b")
			for i := range n {
				e.content(fmt.Sprintf("a/%d", i), fmt.Sprint(i))
			}
		}},
		{name: "directories across one another", run: func(e *env) {
			e.mkdir("a", "b", "a/sub", "b/sub")
			e.workers(n, func(int) {
				for range 50 {
					// Each of these may fail, and none may make a circle.
					_ = unix.Rename(e.at("a"), e.at("b/sub/a"))
					_ = unix.Rename(e.at("b"), e.at("a/sub/b"))
					_ = unix.Rename(e.at("b/sub/a"), e.at("a"))
					_ = unix.Rename(e.at("a/sub/b"), e.at("b"))
				}
			})
			found := 0
			e.check(fs.WalkDir(os.DirFS(e.dir), ".", func(_ string, _ fs.DirEntry, err error) error {
				found++
				return err
			}))
			equal(e, "directories", found, 5)
		}},
		{name: "links", make: func(e *env) { e.write("file", "x") }, run: func(e *env) {
			e.workers(n, func(i int) {
				for j := range 30 {
					name := e.at(fmt.Sprintf("link %d %d", i, j))
					e.complain(os.Link(e.at("file"), name))
					if j%2 == 0 {
						e.complain(os.Remove(name))
					}
				}
			})
			equal(e, "links", e.stat("file").Nlink, n*15+1)
		}},
		{name: "list while others work", make: func(e *env) {
			e.mkdir("dir")
			for i := range 300 {
				e.write(fmt.Sprintf("dir/stays %d", i), "")
			}
		}, run: func(e *env) {
			var done atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				for !done.Load() {
					entries, err := os.ReadDir(e.at("dir"))
					stays := 0
					for _, entry := range entries {
						if strings.HasPrefix(entry.Name(), "stays") {
							stays++
						}
					}
					if err != nil || stays != 300 {
						e.Errorf("%d entries of 300 are seen: %v", stays, err)
						return
					}
				}
			})
			e.workers(4, func(i int) {
				for j := range 100 {
					name := e.at(fmt.Sprintf("dir/new %d %d", i, j))
					e.complain(os.WriteFile(name, nil, 0o644))
					if j%3 > 0 {
						e.complain(os.Remove(name))
					}
				}
			})
			done.Store(true)
			wg.Wait()
			entries, err := os.ReadDir(e.at("dir"))
			e.check(err)
			equal(e, "entries", len(entries), 300+4*34)
		}},
		{name: "trees", make: func(e *env) { e.mkdir("old"); e.write("old/file", "x") }, run: func(e *env) {
			e.workers(n, func(i int) {
				for range 5 {
					top := e.at(fmt.Sprintf("old/%d", i))
					e.complain(os.MkdirAll(top+"/a/b/c", 0o755))
					for j := range 10 {
						e.complain(os.WriteFile(fmt.Sprintf("%s/a/b/%d", top, j), []byte("x"), 0o644))
					}
					e.complain(os.RemoveAll(top))
				}
			})
			e.names("old", "file")
		}},
	}
}
