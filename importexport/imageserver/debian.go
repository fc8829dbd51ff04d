package imageserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// DebianSuite is the release that [DebianRoot] makes.
	DebianSuite = "bookworm"
	cacheEnv    = "PLASH_TEST_CACHE"
	mirrorEnv   = "PLASH_TEST_MIRROR"
)

// DebianRoot returns the tar of a minimal Debian root filesystem. It is made
// once by mmdebstrap, which takes half a minute and root's rights or user
// namespaces, and kept in dir, which is for such things alone; "": plash-test
// in the user's cache directory, or what PLASH_TEST_CACHE names. Processes that
// want it at once wait for the first of them.
//
// The packages come from the mirror that PLASH_TEST_MIRROR names (a URL, or
// what else mmdebstrap takes), else from this machine's own if it has Debian
// sources, else from mmdebstrap's default.
func DebianRoot(dir string) (string, error) { return DebianWith(dir) }

// DebianWith is [DebianRoot] with some packages installed, without what they only recommend.
func DebianWith(dir string, packages ...string) (string, error) {
	ending := ".tar"
	if len(packages) > 0 {
		ending = "-" + strings.Join(packages, "-") + ending
	}
	return debian(dir, ending, func(target string) error {
		program, err := exec.LookPath("mmdebstrap")
		if err != nil {
			return fmt.Errorf("%w (the Debian package mmdebstrap has it)", err)
		}
		args := []string{"--quiet", "--variant=minbase", "--format=tar"}
		for _, p := range packages {
			args = append(args, "--include="+p)
		}
		args = append(args, DebianSuite, target)
		return run(exec.Command(program, append(args, mirror("/etc/apt")...)...))
	})
}

// DebianRootXZ returns [DebianRoot] compressed with xz, as image servers have it.
func DebianRootXZ(dir string) (string, error) {
	tar, err := DebianRoot(dir)
	if err != nil {
		return "", err
	}
	return debian(dir, ".tar.xz", func(target string) (err error) {
		out, err := os.Create(target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
		cmd := exec.Command("xz", "-0", "-T0", "-c", tar)
		cmd.Stdout = out
		return run(cmd)
	})
}

// DebianImage is [DebianRootXZ] as the image "debian:bookworm".
func DebianImage(dir string) (Image, error) {
	file, err := DebianRootXZ(dir)
	return Image{Dist: "debian", Release: DebianSuite, Aliases: "debian/bookworm,debian/12", File: file}, err
}

// debian returns the file of that ending in the cache directory, after making
// it if it is not there.
func debian(dir, ending string, make func(target string) error) (_ string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("debian image: %w", err)
		}
	}()
	if dir, err = cacheDir(dir); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "debian-"+DebianSuite+"-"+Arch()+ending)
	unlock, err := lock(name + ".lock")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	// A killed run may have left this, and even have a program that writes to it
	// for a moment more.
	unfinished := name + ".unfinished"
	if err := removeIfThere(unfinished); err != nil {
		return "", err
	}
	if err := make(unfinished); err != nil {
		return "", errors.Join(err, removeIfThere(unfinished))
	}
	return name, os.Rename(unfinished, name)
}

func cacheDir(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv(cacheEnv)
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "plash-test")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// lock waits for the exclusive lock on a file, which it makes if need be.
func lock(name string) (unlock func() error, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(&os.PathError{Op: "lock", Path: name, Err: err}, f.Close())
		}
	}
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// run runs a program that does not outlive this one. What it says comes with
// the error if it fails.
func run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// mirror is what mmdebstrap is told about where packages come from.
func mirror(apt string) []string {
	if m := os.Getenv(mirrorEnv); m != "" {
		return []string{m}
	}
	for _, name := range []string{"sources.list", "sources.list.d/debian.sources", "sources.list.d/debian.list"} {
		if uri := debianURI(filepath.Join(apt, name)); uri != "" && uri != "http://deb.debian.org/debian" {
			return []string{uri}
		}
	}
	return nil // mmdebstrap's default, with the updates
}

// debianURI is the first archive of Debian in a file of apt's sources, in either
// of their two forms.
func debianURI(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "deb" && words[0] != "URIs:" {
			continue
		}
		for _, word := range words[1:] {
			uri := strings.TrimRight(word, "/")
			if strings.Contains(uri, "://") && strings.HasSuffix(uri, "/debian") {
				return uri
			}
		}
	}
	return ""
}
