package bundle

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// written writes a bundle and reads its configuration.
func written(t *testing.T, c Container) *specs.Spec {
	t.Helper()
	dir := t.TempDir()
	if err := Write(dir, c); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, RootDir)); err != nil || !fi.IsDir() {
		t.Errorf("root: %v, %v", fi, err)
	}
	hosts, err := os.ReadFile(filepath.Join(dir, hostsFile))
	if err != nil || !strings.HasSuffix(string(hosts), "127.0.0.1\t"+c.Name+"\n") {
		t.Errorf("hosts: %q, %v", hosts, err)
	}
	return &spec
}

func TestWrite(t *testing.T) {
	c := Container{
		Name:  "plash-7",
		Image: container.ImageConfig{Env: []string{"A=1", "HOME=/image"}, WorkingDir: "srv/../data"},
		Args:  []string{"a", "b"},
		User:  User{UID: 3, GID: 4, Groups: []uint32{5}, Home: "/home/x"},
		Binds: []Bind{{Path: "/srv", Source: "/host/srv"}},
	}
	s := written(t, c)
	if want := []string{"A=1", "HOME=/image", "PATH=" + program.DefaultPath, "HOSTNAME=plash-7"}; !slices.Equal(s.Process.Env, want) {
		t.Errorf("environment %q, expected %q", s.Process.Env, want)
	}
	if s.Process.Cwd != "/data" || !slices.Equal(s.Process.Args, c.Args) || s.Process.Terminal || s.Hostname != "plash-7" {
		t.Errorf("process %+v of %s", s.Process, s.Hostname)
	}
	if u := s.Process.User; u.UID != 3 || u.GID != 4 || !slices.Equal(u.AdditionalGids, []uint32{5}) {
		t.Errorf("user %+v", u)
	}
	if caps := s.Process.Capabilities; len(caps.Effective)+len(caps.Permitted)+len(caps.Ambient)+len(caps.Inheritable) > 0 || len(caps.Bounding) == 0 {
		t.Errorf("capabilities of who is not root: %+v", caps)
	}
	if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return m.Destination == "/srv" && m.Source == "/host/srv" && slices.Contains(m.Options, "rbind")
	}) {
		t.Errorf("what is shared is missing: %+v", s.Mounts)
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace || ns.Type == specs.UserNamespace {
			t.Errorf("namespace %s", ns.Type)
		}
	}
	if s.Hooks != nil || s.Linux.Resources != nil {
		t.Errorf("hooks %+v, resources %+v", s.Hooks, s.Linux.Resources)
	}
}

func TestWriteVariants(t *testing.T) {
	root := written(t, Container{Name: "x", Terminal: true, Term: "vt100", Devices: true, Prepare: []string{"/p", "q"}})
	if !slices.Contains(root.Process.Env, "TERM=vt100") || !root.Process.Terminal {
		t.Errorf("terminal: %+v", root.Process)
	}
	if caps := root.Process.Capabilities; !slices.Contains(caps.Effective, "CAP_CHOWN") || slices.Contains(caps.Bounding, "CAP_MKNOD") || slices.Contains(caps.Bounding, "CAP_SYS_ADMIN") {
		t.Errorf("capabilities %+v", caps)
	}
	if d := root.Linux.Resources.Devices; len(d) != 1 || d[0].Allow {
		t.Errorf("devices %+v", d)
	}
	if h := root.Hooks.CreateContainer; len(h) != 1 || h[0].Path != "/p" || !slices.Equal(h[0].Args, []string{"q"}) {
		t.Errorf("hooks %+v", h)
	}
	user := written(t, Container{Name: "x", Owner: &Owner{1001, 1002}, UserNamespace: true})
	if !reflect.DeepEqual(user.Linux.UIDMappings, []specs.LinuxIDMapping{{HostID: 1001, Size: 1}}) ||
		!reflect.DeepEqual(user.Linux.GIDMappings, []specs.LinuxIDMapping{{HostID: 1002, Size: 1}}) {
		t.Errorf("maps %+v, %+v", user.Linux.UIDMappings, user.Linux.GIDMappings)
	}
	for _, m := range user.Mounts {
		// What a user namespace may not mount.
		if m.Type == "sysfs" || m.Type == "cgroup" || slices.Contains(m.Options, "gid=5") {
			t.Errorf("mount %+v", m)
		}
	}
}

func TestCommand(t *testing.T) {
	im := container.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c", "d"}}
	for _, c := range []struct{ words, want []string }{
		{nil, []string{"e", "c", "d"}},
		{[]string{"w"}, []string{"e", "w"}},
	} {
		if got := Command(im, c.words); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, expected %q", c.words, got, c.want)
		}
	}
	if got := Command(container.ImageConfig{}, nil); len(got) != 0 {
		t.Errorf("nothing: %q", got)
	}
}

func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	look := func(name string) (User, error) { return LookUp(int(root.Fd()), name) }
	if u, err := look("12:13"); err != nil || u.UID != 12 || u.GID != 13 || u.Home != "/" {
		t.Errorf("without files: %+v, %v", u, err)
	}
	write("passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\nbad:x:-5:0::/:\n")
	write("group", "web:x:44:\nmore:x:55:web,root\n")
	for name, want := range map[string]User{
		"":        {Home: "/root", Groups: []uint32{55}},
		"root":    {Home: "/root", Groups: []uint32{55}},
		"web":     {UID: 33, GID: 44, Groups: []uint32{55}, Home: "/srv"},
		"33":      {UID: 33, GID: 44, Groups: []uint32{55}, Home: "/srv"},
		"web:55":  {UID: 33, GID: 55, Home: "/srv"},
		"7:more":  {UID: 7, GID: 55, Home: "/"},
		"web:web": {UID: 33, GID: 44, Home: "/srv"},
	} {
		got, err := look(name)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, expected %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"nosuch", "web:nosuch", "bad", "-1", "99999999999", "0:99999999999"} {
		if u, err := look(name); err == nil || !strings.Contains(err.Error(), "of the image") {
			t.Errorf("%q: %+v, %v", name, u, err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "etc/group"), maxAccounts+1); err != nil {
		t.Fatal(err)
	}
	if u, err := look("web"); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("large file: %+v, %v", u, err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if e, err := Find("podman"); err == nil || errors.Is(err, ErrNoEngine) {
		t.Errorf("podman: %+v, %v", e, err)
	}
	crun := filepath.Join(dir, "crun")
	if err := os.WriteFile(crun, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if e, err := Find("crun"); err != nil || e != (Engine{"crun", crun}) {
		t.Errorf("crun: %+v, %v", e, err)
	}
	if err := os.Remove(crun); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/usr/sbin/crun"); err == nil {
		t.Skip("crun is where it is not to be")
	}
	_, err := Find("crun")
	var hinted interface{ Hint() string }
	if !errors.Is(err, ErrNoEngine) || !errors.As(err, &hinted) || hinted.Hint() != "sudo apt-get install crun" {
		t.Errorf("no crun: %v", err)
	}
}

func TestRunFiles(t *testing.T) {
	r := Run{Engine: Engine{"crun", "/x/crun"}, Bundle: "/b", Dir: t.TempDir(), Name: "n"}
	if r.Pid() != 0 || r.Said() != "" {
		t.Errorf("before: %d, %q", r.Pid(), r.Said())
	}
	for path, text := range map[string]string{
		r.pidFile(): "42",
		r.logFile(): `{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"last"}` + "\nno JSON\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r.Pid() != 42 || r.Said() != "last" {
		t.Errorf("after: %d, %q", r.Pid(), r.Said())
	}
}
