package build

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/packages anew")

// busyboxRoot makes a root filesystem of nothing but busybox.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	root := t.TempDir()
	for _, dir := range []string{"bin", "dev", "etc", "proc", "usr/sbin", "var"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, root, map[string]string{"bin/busybox": string(b)})
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// writeFiles writes executable files below root.
func writeFiles(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// chrootScript runs a script with busybox in root, and returns its log.
func chrootScript(t *testing.T, root, script string) (string, error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-l", "/dev/stdin")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	writeFiles(t, root, map[string]string{"script": script})
	cmd.Args = []string{"sh", "-l", "/script"}
	out, err := cmd.CombinedOutput()
	if err := os.Remove(filepath.Join(root, "script")); err != nil {
		t.Fatal(err)
	}
	return string(out), err
}

// files returns the names of all files below dir that are no directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, e := range listed(t, dir) {
		if e.kind != 'd' {
			names = append(names, e.name)
		}
	}
	return names
}

// listed is what there is in a directory, without the content of files.
func listed(t *testing.T, dir string) []*entry {
	t.Helper()
	tree := hostTree{root: dir}
	if err := tree.walk(t.Context(), nil, func(*entry) {}); err != nil {
		t.Fatal(err)
	}
	return tree.entries
}

// standIn notes its name and arguments, a line each, and its standard input.
const standIn = `#!/bin/sh
{ echo "${0##*/}"; for arg; do echo "  $arg"; done; } >>/log
test -z "$(cat)" || echo "  has standard input" >>/log
`

// What package managers are called with, and that they leave nothing behind.
func TestPackageManagers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	const aptUpdate = "apt-get\n  update\n  -qq\n"
	const aptInstall = "apt-get\n  install\n  -qq\n  -y\n  -o\n  Dpkg::Use-Pty=0\n" +
		"  -o\n  Dpkg::Options::=--force-confdef\n  -o\n  Dpkg::Options::=--force-confold\n"
	const pkgs = "  a\n  b c$x'\n"
	for _, tt := range []struct {
		action   string
		programs string            // that stand in
		does     map[string]string // what they do besides
		want     string
		log      string // what the user sees first
	}{
		{
			action: "apt", programs: "apt-get",
			does: map[string]string{"apt-get": `case $1 in
update) mkdir -p /var/lib/apt/lists/partial; touch /var/lib/apt/lists/x;;
install) mkdir -p /var/cache/apt/archives; touch /var/cache/apt/archives/a.deb
	test "$DEBIAN_FRONTEND" = noninteractive; test "$(/usr/sbin/policy-rc.d; echo $?)" = 101;;
clean) rm /var/cache/apt/archives/*;;
esac`},
			want: aptUpdate + aptInstall + pkgs + "apt-get\n  clean\n",
			log:  "--> apt-get update -qq\n--> DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -qq -y ",
		},
		{
			action: "add-apt-repository", programs: "apt-get",
			does: map[string]string{"apt-get": `case $1 in install) cp /usr/local/bin/apt-get /usr/bin/add-apt-repository; esac
mkdir -p /var/lib/apt/lists; touch /var/lib/apt/lists/x`},
			want: aptUpdate + aptInstall + "  software-properties-common\n" +
				"add-apt-repository\n  -y\n  a\nadd-apt-repository\n  -y\n  b c$x'\napt-get\n  clean\n",
			log: "--> command -v add-apt-repository\n--> apt-get update -qq\n",
		},
		{
			action: "apk", programs: "apk",
			does: map[string]string{"apk": "mkdir -p /var/cache/apk; touch /var/cache/apk/APKINDEX.tar.gz"},
			want: "apk\n  update\napk\n  add\n" + pkgs,
			log:  "--> apk update\n--> apk add a ",
		},
		{
			action: "dnf", programs: "dnf",
			does: map[string]string{"dnf": "mkdir -p /var/cache/libdnf5 /var/cache/dnf; touch /var/cache/libdnf5/x /var/cache/dnf/y; echo removed"},
			want: "dnf\n  install\n  -y\n" + pkgs + "dnf\n  clean\n  all\n",
			log:  "--> dnf install -y a ",
		},
		{
			action: "yum", programs: "yum",
			does: map[string]string{"yum": "mkdir -p /var/cache/yum; touch /var/cache/yum/x; echo removed"},
			want: "yum\n  install\n  -y\n" + pkgs + "yum\n  clean\n  all\n",
			log:  "--> yum install -y a ",
		},
		{
			action: "pacman", programs: "pacman",
			does: map[string]string{"pacman": "mkdir -p /var/cache/pacman/pkg /var/lib/pacman/sync; touch /var/cache/pacman/pkg/x /var/lib/pacman/sync/y"},
			want: "pacman\n  -Syu\n  --noconfirm\n  --needed\n" + pkgs,
			log:  "--> pacman -Syu --noconfirm --needed a ",
		},
		{
			action: "emerge", programs: "emerge emerge-webrsync",
			does: map[string]string{
				"emerge-webrsync": "mkdir -p /var/db/repos/gentoo/profiles; touch /var/db/repos/gentoo/profiles/x /var/db/repos/gentoo/.hidden",
				"emerge":          "mkdir -p /var/cache/distfiles; touch /var/cache/distfiles/x",
			},
			want: "emerge-webrsync\n  --quiet\nemerge\n  --ask=n\n  --quiet-build=y\n  --nospinner\n" + pkgs,
			log:  "--> test -e /var/db/repos/gentoo/profiles\n",
		},
		{
			action: "pip", programs: "pip",
			does: map[string]string{"pip": `test "$PIP_BREAK_SYSTEM_PACKAGES" = 1`},
			want: "pip\n  install\n  --no-input\n  --no-cache-dir\n" + pkgs,
			log:  "--> PIP_BREAK_SYSTEM_PACKAGES=1 ",
		},
		{
			action: "pip3", programs: "pip3",
			want: "pip3\n  install\n  --no-input\n  --no-cache-dir\n" + pkgs,
			log:  "--> PIP_BREAK_SYSTEM_PACKAGES=1 ",
		},
		{
			action: "npm", programs: "npm",
			does: map[string]string{"npm": "mkdir /tmp/.plash-npm; touch /tmp/.plash-npm/x"},
			want: "npm\n  install\n  -g\n  --no-audit\n  --no-fund\n  --no-update-notifier\n  --cache=/tmp/.plash-npm\n" + pkgs,
			log:  "--> npm install -g ",
		},
	} {
		t.Run(tt.action, func(t *testing.T) {
			root := busyboxRoot(t)
			programs := map[string]string{}
			for _, name := range strings.Fields(tt.programs) {
				programs["usr/local/bin/"+name] = standIn + "set -e\n" + tt.does[name] + "\n"
			}
			writeFiles(t, root, programs)
			if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			script := scripts(t, "--"+tt.action, "a", "b c$x'")[0]
			log, err := chrootScript(t, root, script)
			if err != nil {
				t.Fatalf("%v\n%s\nscript:\n%s", err, log, script)
			}
			called, err := os.ReadFile(filepath.Join(root, "log"))
			if err != nil {
				t.Fatal(err)
			}
			if string(called) != tt.want {
				t.Errorf("called:\n%s\nwant:\n%s", called, tt.want)
			}
			if !strings.HasPrefix(log, tt.log) {
				t.Errorf("log:\n%s\nwant first:\n%s", log, tt.log)
			}
			if strings.Contains(log, "--> rm") || strings.Contains(log, "removed") && tt.action != "dnf" && tt.action != "yum" {
				t.Errorf("housekeeping is in the log:\n%s", log)
			}
			for _, dir := range []string{"var", "tmp", "usr/sbin"} {
				if left := files(t, filepath.Join(root, dir)); len(left) > 0 {
					t.Errorf("left in %s: %q", dir, left)
				}
			}
		})
	}
}

// Names reach a package manager as they were given, all of them.
func TestPackageNames(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	names := append([]string{"git"}, nasty...)
	names = append(names, "a \"b\" 'c' $HOME \\ \n d", "naïve-ünïcode", "{} {}", "g++", "name=1:2~3")
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "-") }) // which are actions
	// An installing program is called with what it wants, and ends with the names.
	const record = "#!/bin/sh\nprintf '%s\\0' \"$@\" >/args.$1\n"
	root := busyboxRoot(t)
	programs := map[string]string{"usr/local/bin/add-apt-repository": "#!/bin/sh\nshift\nprintf '%s\\0' \"$@\" >>/args.add\n"}
	for _, name := range strings.Fields("apt-get apk dnf yum pacman emerge pip pip3 npm") {
		programs["usr/local/bin/"+name] = record
	}
	programs["usr/portage/profiles"] = "the ebuild repository is there\n"
	writeFiles(t, root, programs)
	for _, m := range managers {
		t.Run(m.name, func(t *testing.T) {
			if log, err := chrootScript(t, root, scripts(t, append([]string{"--" + m.name}, names...)...)[0]); err != nil {
				t.Fatal(err, log)
			}
			subcommand := map[string]string{"apk": "add", "add-apt-repository": "add", "pacman": "-Syu", "emerge": "--ask=n"}[m.name]
			if subcommand == "" {
				subcommand = "install"
			}
			args, err := os.ReadFile(filepath.Join(root, "args."+subcommand))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
			if len(got) < len(names) {
				t.Fatalf("called with %q", got)
			}
			compareWords(t, got[len(got)-len(names):], names)
			if err := os.Remove(filepath.Join(root, "args."+subcommand)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The scripts, word for word. Cache keys change with them.
func TestPackageScripts(t *testing.T) {
	for _, m := range managers {
		path := filepath.Join("testdata/packages", m.name+".sh")
		want, err := os.ReadFile(path)
		if err != nil && !*update {
			t.Error(err)
			continue
		}
		got := scripts(t, "--"+m.name, "git", "a 'b' $c")[0]
		switch {
		case string(want) == got:
		case *update:
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
		}
	}
}

// A package manager that fails ends the layer.
func TestPackageManagersFail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	root := busyboxRoot(t)
	programs := map[string]string{}
	for _, name := range strings.Fields("apt-get apk dnf yum pacman emerge emerge-webrsync pip pip3 npm") {
		programs["usr/local/bin/"+name] = "#!/bin/sh\ncase $1 in update) ;; *) exit 7; esac\n"
	}
	programs["usr/local/bin/add-apt-repository"] = "#!/bin/sh\ntest \"$2\" != a || exit 7\n"
	writeFiles(t, root, programs)
	for _, m := range managers {
		log, err := chrootScript(t, root, scripts(t, "--"+m.name, "a", "b", "--run", "touch /reached")[0])
		if err == nil || !strings.Contains(err.Error(), "exit status 7") {
			t.Errorf("--%s: got %v\n%s", m.name, err, log)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "reached")); err == nil {
		t.Error("a layer went on after its package manager failed")
	}
}

// policy-rc.d of the image is respected, and stays.
func TestAptKeepsPolicy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	root := busyboxRoot(t)
	const policy = "#!/bin/sh\nexit 0\n"
	writeFiles(t, root, map[string]string{"usr/local/bin/apt-get": standIn, "usr/sbin/policy-rc.d": policy})
	if log, err := chrootScript(t, root, scripts(t, "--apt", "a")[0]); err != nil {
		t.Fatal(err, log)
	}
	if b, err := os.ReadFile(filepath.Join(root, "usr/sbin/policy-rc.d")); err != nil || string(b) != policy {
		t.Errorf("got %q, %v", b, err)
	}
}

// All shells can read what plash writes.
func TestSyntax(t *testing.T) {
	var args []string
	for _, a := range Actions() {
		switch a.Group {
		case groupImages:
		case groupPackages:
			if a.Name != "defpm" {
				args = append(args, "--"+a.Name, "a", "b'c")
			}
		}
	}
	args = append(args, "--devinit", "--align-cwd", "--bust-cache", "--namespace", "a'b", "--write-script", "/a", "b'c",
		"--entrypoint-script", "d", "--entrypoint", "a'b\n'c", "--import-env", "PATH", "--watch", ".")
	eachShell(t, func(t *testing.T, shell []string) {
		for _, script := range scripts(t, args...) {
			cmd := exec.Command(shell[0], append(slices.Clone(shell[1:]), "-n")...)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s\n%s", err, out, script)
			}
		}
	})
}

func TestDevinit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mknod needs root")
	}
	root := busyboxRoot(t)
	// The script binds / of the container, so the container must be a mount; the
	// mount is one of a namespace that goes with the process.
	script := scripts(t, "--devinit")[0]
	writeFiles(t, root, map[string]string{"script": script})
	if err := os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	setup := fmt.Sprintf("mount -o bind %s %s && mount -t tmpfs none %s/dev && mknod -m 666 %s/dev/null c 1 3 && chroot %s sh -l /script && chroot %s sh -c 'ls /dev /tmp'",
		Quote(root), Quote(root), Quote(root), Quote(root), Quote(root), Quote(root))
	cmd := exec.Command("busybox", "sh", "-c", setup)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "--> : devinit\n/dev:\nnull\n\n/tmp:\n"; string(out) != want {
		t.Errorf("got %q, want %q: the mounted /dev and /tmp stay as they are", out, want)
	}
	entries := listed(t, filepath.Join(root, "dev"))
	var got []string
	for _, e := range entries[1:] {
		got = append(got, fmt.Sprintf("%c %s %o %s", e.kind, e.name, e.mode, e.value))
	}
	want := []string{
		"c console 600 5:1", "l fd 777 /proc/self/fd", "c full 666 1:7",
		"f null 600 ", // was there
		"c ptmx 666 5:2", "d pts 755 ", "c random 666 1:8", "d shm 1777 ", "l stderr 777 /proc/self/fd/2", "l stdin 777 /proc/self/fd/0",
		"l stdout 777 /proc/self/fd/1", "c tty 666 5:0", "c urandom 666 1:9", "c zero 666 1:5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
