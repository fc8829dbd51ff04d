package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nastyNames are the nasty words that can be names of files.
func nastyNames() []string {
	return slices.DeleteFunc(append(slices.Clone(nasty), "it's $a \"b\" \\ ü\n*", "-rf", "--", " leading", "trailing "), func(name string) bool {
		return name == "" || strings.Contains(name, "/")
	})
}

// Files get the names that actions give them, whatever is in those.
func TestNamesReachFiles(t *testing.T) {
	names := nastyNames()
	slices.Sort(names)
	names = slices.Compact(names)
	var args []string
	for _, name := range names {
		args = append(args, "--write-file="+name, "text", "--write-script="+name+".script", "#!", "--write-file=dir/"+name+"/deep", "text")
	}
	eachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		runScript(t, shell, dir, scripts(t, args...)[0])
		for _, name := range names {
			for file, want := range map[string]os.FileMode{name: 0o644, name + ".script": 0o755, "dir/" + name + "/deep": 0o644} {
				info, err := os.Stat(filepath.Join(dir, file))
				if err != nil {
					t.Errorf("%q: %v", file, err)
				} else if info.Mode().Perm() != want {
					t.Errorf("%q: mode %v, want %v", file, info.Mode(), want)
				}
			}
		}
		// And no others.
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != 2*len(names)+1 {
			t.Errorf("%d files, %v; want %d", len(all), err, 2*len(names)+1)
		}
	})
}

// The same for files that are copied: names of the host's and of the image's.
func TestNamesAreCopied(t *testing.T) {
	host := t.TempDir()
	t.Chdir(host)
	names := nastyNames()
	for _, name := range names {
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	eachShell(t, func(t *testing.T, shell []string) {
		image := t.TempDir()
		args := []string{host, "all"}
		for _, name := range names {
			if !strings.HasPrefix(name, "-") { // which is an action
				args = append(args, "--copy", "./"+name, name+"/")
			}
		}
		if _, err := copyInto(t, shell, image, args...); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			for _, dir := range []string{"all", name} {
				if dir[0] == '-' {
					continue
				}
				if b, err := os.ReadFile(filepath.Join(image, dir, name)); err != nil || string(b) != name {
					t.Errorf("%q in %q: %q, %v", name, dir, b, err)
				}
			}
		}
	})
}

// --align-cwd goes to the directory, --watch looks at the file, and --namespace keeps apart, that has
// the name.
func TestNamesOfTheRest(t *testing.T) {
	home := t.TempDir()
	seen := map[string]string{}
	for _, name := range nastyNames() {
		dir := filepath.Join(home, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		align := scripts(t, "--align-cwd", "--run", "pwd")[0]
		out, _ := runScript(t, []string{"sh"}, "/", align)
		if want, err := filepath.EvalSymlinks(dir); err != nil || out != want+"\n" {
			t.Errorf("--align-cwd: %q, want %q", out, want)
		}
		watched := scripts(t, "--watch="+name)[0]
		if watched != scripts(t, "--watch", dir+"/"+name)[0] {
			t.Errorf("--watch %q: %q", name, watched)
		}
		for _, script := range []string{watched, scripts(t, "--namespace="+name, "--run", "true")[0], scripts(t, "--write-file=/"+name)[0]} {
			if before, ok := seen[script]; ok && before != name {
				t.Errorf("%q and %q are the same: %q", name, before, script)
			}
			seen[script] = name
		}
	}
}

// What --run is given is what the shell reads, byte by byte.
func TestRunIsAsWritten(t *testing.T) {
	for _, w := range randomWords(500) {
		if got := scripts(t, "--run="+w, "second line")[0]; got != Prologue+w+"\nsecond line\n" {
			t.Errorf("%q: %q", w, got)
		}
	}
}
