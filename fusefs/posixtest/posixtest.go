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
	"path/filepath"
	"strings"
	"testing"
)

// Options say what is known about a filesystem.
type Options struct {
	// Known are the differences from ext4: names of subtests as go test prints
	// them, but with spaces, below that of the caller ("rename/onto itself/lower"),
	// and why they differ. A name without its last part stands for both.
	Known map[string]string
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
	used := map[string]bool{}
	for _, topic := range table() {
		t.Run(topic.name, func(t *testing.T) {
			for _, c := range topic.cases {
				t.Run(c.name, func(t *testing.T) {
					if c.root && os.Geteuid() != 0 {
						t.Skip("needs root")
					}
					name := topic.name + "/" + c.name
					if o.Lower && c.make != nil {
						t.Run("lower", func(t *testing.T) {
							e := &env{dir: filepath.Join(dir, topic.name, c.name), lower: true, o: &o}
							e.judge(t, c, name+"/lower", used)
						})
					}
					t.Run("new", func(t *testing.T) {
						e := &env{dir: filepath.Join(dir, "new", topic.name, c.name), o: &o}
						check(t, os.MkdirAll(filepath.Dir(e.dir), 0o755))
						e.judge(t, c, name+"/new", used)
					})
				})
			}
		})
	}
	if name := misspelled(o.Known); name != "" {
		t.Errorf("the list of differences has %q, which is no case", name)
	}
}

// misspelled finds a name that stands for no case.
func misspelled(known map[string]string) string {
	names := map[string]bool{}
	for _, topic := range table() {
		for _, c := range topic.cases {
			for _, end := range []string{"", "/lower", "/new"} {
				names[topic.name+"/"+c.name+end] = true
			}
		}
	}
	for name := range known {
		if !names[name] {
			return name
		}
	}
	return ""
}

// judge runs a case and compares what came out with what is known.
func (e *env) judge(t *testing.T, c testCase, name string, used map[string]bool) {
	t.Helper()
	r := &recorder{TB: t}
	e.TB = r
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !e.lower {
			e.begin()
			defer e.end()
			if c.make != nil {
				c.make(e)
			}
			c.run(e)
			return
		}
		defer e.end()
		c.run(e)
	}()
	<-done
	key, reason := name, e.o.Known[name]
	if reason == "" {
		key = strings.TrimSuffix(strings.TrimSuffix(name, "/lower"), "/new")
		reason = e.o.Known[key]
	}
	used[key] = true
	failures := strings.Join(r.failures, "\n")
	switch {
	case r.skipped != "" && failures == "":
		t.Skip(r.skipped)
	case failures != "" && reason != "":
		t.Logf("differs from ext4, as is known (%s): %s", reason, failures)
	case failures != "":
		t.Error(failures)
	case reason != "":
		t.Errorf("does what ext4 does, but is listed as different: %s", reason)
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(fmt.Errorf("posixtest: %w", err))
	}
}
