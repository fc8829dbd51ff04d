package registriesconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tableFor is a file that says where reg.example is.
func tableFor(location string) string {
	return "[[registry]]\nprefix = 'reg.example'\nlocation = '" + location + "'\n"
}

func TestFiles(t *testing.T) {
	for _, c := range []struct {
		name       string
		uid        int
		files      []string // below the world; each says that reg.example is where its own path says
		only, last string
		want       string // the file that wins
		fails      error
	}{
		{name: "nothing"},
		{name: "vendor", files: []string{"vendor/registries.conf"}, want: "vendor/registries.conf"},
		{name: "admin", files: []string{"vendor/registries.conf", "admin/registries.conf"}, want: "admin/registries.conf"},
		{name: "user", files: []string{"vendor/registries.conf", "admin/registries.conf", "user/registries.conf"}, want: "user/registries.conf"},
		{name: "drop-in", files: []string{"user/registries.conf", "vendor/registries.conf.d/a.conf"}, want: "vendor/registries.conf.d/a.conf"},
		{name: "by name", files: []string{"vendor/registries.conf.d/c.conf", "admin/registries.conf.d/b.conf", "user/registries.conf.d/a.conf"}, want: "vendor/registries.conf.d/c.conf"},
		{name: "hidden", files: []string{"vendor/registries.conf.d/a.conf", "admin/registries.conf.d/a.conf"}, want: "admin/registries.conf.d/a.conf"},
		{name: "hidden by the user", files: []string{"user/registries.conf.d/a.conf", "admin/registries.conf.d/a.conf"}, want: "user/registries.conf.d/a.conf"},
		{name: "not a .conf", files: []string{"user/registries.conf.d/a.conf", "user/registries.conf.d/b.conf~", "user/registries.conf.d/c.conf/d.conf"}, want: "user/registries.conf.d/a.conf"},
		{name: "root's", files: []string{"admin/registries.rootful.conf.d/b.conf", "admin/registries.rootless.conf.d/c.conf", "admin/registries.conf.d/a.conf"}, want: "admin/registries.rootful.conf.d/b.conf"},
		{name: "users'", uid: 7, files: []string{"admin/registries.rootful.conf.d/b.conf", "vendor/registries.rootless.conf.d/c.conf"}, want: "vendor/registries.rootless.conf.d/c.conf"},
		{name: "a user's", uid: 7, files: []string{"admin/registries.rootless.conf.d/7/a.conf", "admin/registries.rootless.conf.d/a.conf", "admin/registries.rootless.conf.d/8/b.conf"}, want: "admin/registries.rootless.conf.d/7/a.conf"},
		{name: "only", files: []string{"user/registries.conf", "user/registries.conf.d/a.conf", "x"}, only: "x", want: "x"},
		{name: "only, and it is not there", files: []string{"user/registries.conf"}, only: "x", fails: fs.ErrNotExist},
		{name: "last", files: []string{"user/registries.conf.d/a.conf", "x"}, last: "x", want: "x"},
		{name: "last of two", files: []string{"x", "y"}, only: "y", last: "x", want: "x"},
		{name: "last, and it is not there", last: "x", fails: fs.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range c.files {
				write(t, dir, f, tableFor("reg.example/"+f))
			}
			p := places{filepath.Join(dir, "user"), filepath.Join(dir, "admin"), filepath.Join(dir, "vendor"), c.uid}
			for _, name := range []*string{&c.only, &c.last} {
				if *name != "" {
					*name = filepath.Join(dir, *name)
				}
			}
			conf, err := p.load(c.only, c.last)
			if !errors.Is(err, c.fails) {
				t.Fatal(err)
			}
			if c.fails != nil {
				if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fileVar) {
					t.Errorf("it does not say what is missing: %v", err)
				}
				return
			}
			r := conf.Find("reg.example")
			if c.want == "" {
				if r != nil {
					t.Errorf("%+v", r)
				}
				return
			}
			if r == nil || r.Location != "reg.example/"+c.want || r.File != filepath.Join(dir, c.want) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A link to a file counts, one to nothing and one to a directory do not.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	to := write(t, dir, "elsewhere", tableFor("linked.example"))
	write(t, dir, "registries.conf.d/a.conf", tableFor("first.example"))
	for name, to := range map[string]string{"b.conf": to, "c.conf": dir, "d.conf": "/nonexistent"} {
		if err := os.Symlink(to, filepath.Join(dir, "registries.conf.d", name)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := places{user: dir, admin: "/nonexistent", vendor: "/nonexistent"}.load("", "")
	if err != nil || c.Find("reg.example").Location != "linked.example" {
		t.Errorf("%+v, %v", c, err)
	}
}

// A broken file is an error, wherever it lies, and so is one that cannot be read.
func TestBroken(t *testing.T) {
	for _, name := range []string{"user/registries.conf", "admin/registries.conf", "admin/registries.conf.d/x.conf"} {
		dir := t.TempDir()
		path := write(t, dir, name, "[[registry]]\nlocation = 1\n")
		p := places{filepath.Join(dir, "user"), filepath.Join(dir, "admin"), filepath.Join(dir, "vendor"), 0}
		if _, err := p.load("", ""); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") {
			t.Errorf("%v", err)
		}
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
			t.Fatal(err)
		}
		_, err := p.load("", "")
		if dropIn := strings.HasSuffix(filepath.Dir(path), ".d"); dropIn != (err == nil) || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("a directory: %v", err)
		}
	}
}

// A later file's table takes the place of an earlier one's, and leaves the others.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "registries.conf", tableFor("old.example")+"insecure = true\n[[registry]]\nlocation = 'kept.example'\ninsecure = true\n")
	write(t, dir, "registries.conf.d/x.conf", tableFor("new.example")+"[[registry]]\nlocation = 'added.example'\n")
	c, err := places{user: dir, admin: "/nonexistent", vendor: "/nonexistent"}.load("", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"reg.example/x": "new.example/x", "kept.example/x": "kept.example/x+", "added.example/x": "added.example/x", "old.example/x": ""} {
		if got := resolve(c, name, false); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A home that is another's does not stop anyone; a directory of the system does, and a file of one's own.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		closed string
		fails  bool
	}{{"home", false}, {"home/user/registries.conf", true}, {"home/user/registries.conf.d", true}, {"admin", true}, {"admin/registries.conf.d/a.conf", true}} {
		dir := t.TempDir()
		write(t, dir, "home/user/registries.conf", tableFor("user.example"))
		write(t, dir, "home/user/registries.conf.d/b.conf", "")
		write(t, dir, "admin/registries.conf.d/a.conf", tableFor("admin.example"))
		p := places{filepath.Join(dir, "home/user"), filepath.Join(dir, "admin"), filepath.Join(dir, "vendor"), 7}
		err := filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
			return errors.Join(err, os.Chmod(path, 0o755))
		})
		if err = errors.Join(err, os.Chmod(filepath.Join(dir, c.closed), 0)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			var err error
			if os.Geteuid() == 0 { // of this thread, which ends with this function
				runtime.LockOSThread()
				err = syscall.Setfsuid(65534)
			}
			if err == nil {
				_, err = p.load("", "")
			}
			done <- err
		}()
		if err := <-done; c.fails != errors.Is(err, fs.ErrPermission) || !c.fails && err != nil {
			t.Errorf("%s: %v", c.closed, err)
		}
		if err := os.Chmod(filepath.Join(dir, c.closed), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{fileVar, lastVar, "XDG_CONFIG_HOME", "HOME"} {
		t.Setenv(v, "")
	}
	write(t, dir, ".config/containers/registries.conf.d/zzzz.conf", tableFor("home.example"))
	t.Setenv("HOME", dir)
	if c, err := Load(); err != nil || c.Find("reg.example/x").Location != "home.example" {
		t.Errorf("%+v, %v", c, err)
	}
	write(t, dir, "xdg/containers/registries.conf.d/zzzz.conf", tableFor("xdg.example"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "xdg"))
	if c, err := Load(); err != nil || c.Find("reg.example/x").Location != "xdg.example" {
		t.Errorf("%+v, %v", c, err)
	}
	t.Setenv(fileVar, write(t, dir, "x", "nonsense"))
	if _, err := Load(); err == nil || !strings.HasPrefix(err.Error(), fileVar+": "+filepath.Join(dir, "x")+":1: ") {
		t.Error(err)
	}
}
