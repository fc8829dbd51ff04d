// Package posixtest is a table of what a filesystem of Linux does with files, as
// ext4 does it, to hold filesystems against that have writable layers over
// read-only ones.
//
// Most cases start from files. [Fixture] makes those of all cases in a directory
// that becomes the lower layer, and [Run] then does the operations in the
// mounted filesystem: once with the files of the lower layer, so that they are
// copied up, and once with the same files made in the mounted filesystem.
//
// A case says what ext4 does. Where another filesystem is allowed to differ,
// its test says so, with the reason, in [Options]; a difference that is listed and
// is not there is an error too, so that these lists stay true.
//
// It is for tests. Without root, cases that need it are left out.
package posixtest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// Options say what is known about a filesystem.
type Options struct {
	// Known are the differences from ext4: names of subtests below that of the
	// caller, "rename/onto itself/lower", or patterns of them (path.Match), and why
	// they differ. A name without its last part stands for both.
	Known map[string]string
	// May are differences that are there or not, as versions of the kernel have it.
	May map[string]string
	// MovesNoLowerDirs says that rename(2) gives EXDEV for directories of the
	// lower layer, as overlayfs does without redirect_dir. Programs then copy.
	MovesNoLowerDirs bool
	// Lower says that dir shows a lower layer that Fixture has filled. Without
	// it all cases make their files themselves.
	Lower bool
}

// A testCase is one row of the table.
type testCase struct {
	name string
	root bool         // it needs root's rights
	make func(e *env) // makes the files that it starts from; may be nil
	run  func(e *env)
}

// A topic is the cases of a file of this package.
type topic struct {
	name  string
	cases []testCase
}

func table() []topic {
	return []topic{
		{"open", openCases()},
		{"open unlinked", unlinkedCases()},
		{"data", dataCases()},
		{"truncate", truncateCases()},
		{"space", spaceCases()},
		{"copy", copyCases()},
		{"mmap", mmapCases()},
		{"rename", renameCases()},
		{"rename matrix", renameMatrix()},
		{"link", linkCases()},
		{"unlink", unlinkCases()},
		{"symlink", symlinkCases()},
		{"directory", directoryCases()},
		{"readdir", readdirCases()},
		{"mode", modeCases()},
		{"privileges", privilegeCases()},
		{"time", timeCases()},
		{"xattr", xattrCases()},
		{"acl", aclCases()},
		{"special", specialCases()},
		{"lock", lockCases()},
		{"permission", permissionCases()},
		{"inode", inodeCases()},
		{"name", nameCases()},
		{"concurrent", concurrentCases()},
		{"exec", execCases()},
		{"inotify", inotifyCases()},
	}
}

// Fixture fills dir, which exists and is empty, with the files that the cases
// start from.
func Fixture(tb testing.TB, dir string) {
	tb.Helper()
	for _, topic := range table() {
		check(tb, os.Mkdir(filepath.Join(dir, topic.name), 0o755))
		for _, c := range topic.cases {
			if c.make == nil || c.root && os.Geteuid() != 0 {
				continue
			}
			e := &env{TB: tb, dir: filepath.Join(dir, topic.name, c.name)}
			e.begin()
			c.make(e)
			e.end()
		}
	}
}

// Run runs the table in dir, a directory of the filesystem that is to be tested.
// What it makes there is left.
func Run(t *testing.T, dir string, o Options) {
	t.Helper()
	found := map[string]bool{}
	for _, topic := range table() {
		t.Run(topic.name, func(t *testing.T) {
			check(t, os.MkdirAll(filepath.Join(dir, "new", topic.name), 0o755))
			for _, c := range topic.cases {
				t.Run(c.name, func(t *testing.T) {
					if c.root && os.Geteuid() != 0 {
						t.Skip("needs root")
					}
					name := topic.name + "/" + c.name
					if o.Lower && c.make != nil {
						t.Run("lower", func(t *testing.T) {
							e := &env{dir: filepath.Join(dir, name), lower: true, o: &o}
							o.judge(t, e.run(t, c), name, "lower", found)
						})
					}
					t.Run("new", func(t *testing.T) {
						e := &env{dir: filepath.Join(dir, "new", name), o: &o}
						o.judge(t, e.run(t, c), name, "new", found)
					})
				})
			}
		})
	}
	for pattern := range o.Known {
		if differs, ran := found[pattern]; ran && !differs {
			t.Errorf("%q does what ext4 does, but is listed as different: %s", pattern, o.Known[pattern])
		}
	}
	for _, list := range []map[string]string{o.Known, o.May} {
		for pattern := range list {
			if !isCase(pattern) {
				t.Errorf("%q is listed as different, and is no case", pattern)
			}
		}
	}
}

// run runs a case to its end.
func (e *env) run(t *testing.T, c testCase) *recorder {
	r := &recorder{TB: t}
	e.TB = r
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer e.end()
		if !e.lower {
			e.begin()
			if c.make != nil {
				c.make(e)
			}
		}
		c.run(e)
	}()
	<-done
	return r
}

func matches(pattern, name, end string) bool {
	short, _ := path.Match(pattern, name)
	long, _ := path.Match(pattern, name+"/"+end)
	return short || long
}

// isCase reports whether a pattern matches a case.
func isCase(pattern string) bool {
	for _, topic := range table() {
		for _, c := range topic.cases {
			if name := topic.name + "/" + c.name; matches(pattern, name, "lower") || matches(pattern, name, "new") {
				return true
			}
		}
	}
	return false
}

// judge compares what came out with what is known. It notes in found for each
// pattern whether a case that it stands for differs.
func (o *Options) judge(t *testing.T, r *recorder, name, end string, found map[string]bool) {
	t.Helper()
	failures := strings.Join(r.failures, "\n")
	known, reason := false, ""
	for pattern, why := range o.Known {
		if matches(pattern, name, end) {
			known, reason = true, why
			found[pattern] = found[pattern] || failures != ""
		}
	}
	for pattern, why := range o.May {
		if matches(pattern, name, end) {
			known, reason = true, why
		}
	}
	switch {
	case failures != "" && known:
		t.Logf("differs from ext4, as is known (%s): %s", reason, failures)
	case failures != "":
		t.Error(failures)
	case r.skipped != "":
		t.Skip(r.skipped)
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(fmt.Errorf("posixtest: %w", err))
	}
}
