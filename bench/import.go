package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// benchImport measures from a tar to a container that can be run.
func benchImport(b *bench) error {
	store := filepath.Join(b.dir, "store")
	env := []string{"PLASH_DATA=" + store}
	fresh := func() error { return os.RemoveAll(store) }
	tree := filepath.Join(b.dir, "tree")
	copied := filepath.Join(b.dir, "copy.tar")

	sum := &contender{name: "sha256 in Go", do: func() error { return hashFile(b.tar) }}
	cp := &contender{
		name: "cp", do: func() error { return b.command(nil, "cp", "--reflink=never", b.tar, copied) },
		clean: func() error { return os.Remove(copied) },
	}
	cpSync := &contender{
		name: "cp and fsync", do: func() error { return b.command(nil, "dd", "bs=1M", "conv=fsync", "if="+b.tar, "of="+copied) },
		clean: func() error { return os.Remove(copied) },
	}
	ours := &contender{name: "plash import-tar", prepare: fresh, do: func() error {
		return b.command(env, b.plash, "import-tar", b.tar)
	}}
	again := &contender{
		name: "plash import-tar, content known",
		prepare: func() error {
			if err := b.command(env, b.plash, "import-tar", b.tar); err != nil {
				return err
			}
			now := time.Now()
			return os.Chtimes(b.tar, now, now) // so that the file is not known
		},
		do: func() error { return b.command(env, b.plash, "import-tar", b.tar) },
	}
	untar := &contender{
		name: "tar -x", prepare: func() error { return os.MkdirAll(tree, 0o755) },
		do:    func() error { return b.command(nil, "tar", "-x", "-C", tree, "-f", b.tar) },
		clean: func() error { return os.RemoveAll(tree) },
	}
	cs := []*contender{sum, cp, cpSync, ours, again, untar}
	engines, stop, err := b.engines()
	if err != nil {
		return err
	}
	defer stop()
	cs = append(cs, engines...)
	if err := b.race(cs); err != nil {
		return err
	}
	if err := b.report(timesTable("From a plain tar to a container", cs, slower(sum, cp), ours)); err != nil {
		return err
	}
	return benchCompressed(b, env, fresh)
}

func hashFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(sha256.New(), f, make([]byte, 1<<20))
	return err
}

// benchCompressed compares importing compressed tars with decompressing them alone: on one core, as the
// hashing of a plain tar is, and where the decompressor takes more than that, also as it likes.
func benchCompressed(b *bench, env []string, fresh func() error) error {
	type opener func(io.Reader) (io.Reader, error)
	for _, z := range []struct {
		program string
		alone   map[string]opener
	}{
		{"gzip", map[string]opener{"": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }}},
		{"zstd", map[string]opener{
			"":              func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
			" on all cores": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		}},
	} {
		if !have(z.program) {
			continue
		}
		path := filepath.Join(b.dir, "image."+z.program)
		if err := b.command(nil, "sh", "-c", fmt.Sprintf("%s -c '%s' > '%s'", z.program, b.tar, path)); err != nil {
			return err
		}
		var cs []*contender
		for _, how := range slices.Sorted(maps.Keys(z.alone)) {
			cs = append(cs, &contender{name: "decompress " + z.program + how, do: func() error { return decompress(path, z.alone[how]) }})
		}
		alone := cs[0]
		cs = append(cs, &contender{name: "plash import-tar of " + z.program, prepare: fresh, do: func() error {
			return b.command(env, b.plash, "import-tar", path)
		}})
		if err := b.race(cs); err != nil {
			return err
		}
		if err := b.report(timesTable("From a tar in "+z.program+" to a container", cs, alone)); err != nil {
			return err
		}
	}
	return fresh()
}

func decompress(path string, open func(io.Reader) (io.Reader, error)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := open(f)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 1<<20))
	return err
}

// engines are Docker and Podman, loading the same image from an archive. Where no
// Docker engine runs, one is started for the time of the measurement.
func (b *bench) engines() (cs []*contender, stop func(), err error) {
	stop = func() {}
	if have("docker") && have("dockerd") {
		var env []string
		if env, stop, err = b.startDocker(); err != nil {
			return nil, stop, err
		}
		archive := filepath.Join(b.dir, "docker.tar")
		err := b.command(env, "sh", "-c", fmt.Sprintf("docker import '%s' plash-bench >/dev/null && docker save -o '%s' plash-bench", b.tar, archive))
		if err != nil {
			return nil, stop, err
		}
		forget := func() error { return b.command(env, "docker", "rmi", "-f", "plash-bench") }
		cs = append(cs, &contender{
			name: "docker load", prepare: forget,
			do: func() error { return b.command(env, "docker", "load", "-i", archive) },
		})
		if have("podman") {
			root := filepath.Join(b.dir, "podman")
			args := []string{"--root", root, "--runroot", root + "-run", "--storage-driver", "overlay"}
			cs = append(cs, &contender{
				name: "podman load",
				do:   func() error { return b.command(nil, "podman", append(args, "load", "-q", "-i", archive)...) },
				clean: func() error {
					return b.command(nil, "podman", append(args, "rmi", "--all", "--force")...)
				},
			})
		}
	}
	return cs, stop, nil
}

// startDocker starts an engine with a socket and a data directory of its own.
func (b *bench) startDocker() (env []string, stop func(), err error) {
	sock := filepath.Join(b.dir, "docker.sock")
	cmd := exec.CommandContext(b.ctx, "dockerd", "--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false",
		"--data-root", filepath.Join(b.dir, "docker"), "--exec-root", filepath.Join(b.dir, "docker-exec"),
		"--pidfile", filepath.Join(b.dir, "docker.pid"), "-H", "unix://"+sock)
	if err := cmd.Start(); err != nil {
		return nil, func() {}, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	env = []string{"DOCKER_HOST=unix://" + sock}
	for range 100 {
		if b.command(env, "docker", "version") == nil {
			return env, stop, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	stop()
	return nil, func() {}, fmt.Errorf("dockerd does not answer")
}
