package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// layersOfPull is how many layers an image has that is pulled.
const layersOfPull = 10

// benchImages measures how images come in from archives and registries, and go out to archives
// and layouts, beside those programs whose formats these are.
func benchImages(b *bench) error {
	store := filepath.Join(b.dir, "store")
	env := []string{"PLASH_DATA=" + store, "PLASH_PROGRESS=none"}
	fresh := func() error { return os.RemoveAll(store) }
	if err := fresh(); err != nil {
		return err
	}
	id, err := b.output(env, b.plash, "import-tar", b.tar)
	if err != nil {
		return err
	}
	if err := b.benchExport(env, id); err != nil {
		return err
	}
	if err := b.benchArchive(env, id, fresh); err != nil {
		return err
	}
	if !have("docker-registry") || !have("skopeo") {
		return fresh()
	}
	if err := b.benchPull(env, fresh); err != nil {
		return err
	}
	return fresh()
}

// benchExport compares writing files of images with copying the layer.
func (b *bench) benchExport(env []string, id string) error {
	copied := filepath.Join(b.dir, "copy.tar")
	archive := filepath.Join(b.dir, "export.tar")
	layout := filepath.Join(b.dir, "layout")
	export := func(name, ref, path string) *contender {
		return &contender{
			name: "plash export-docker " + name, do: func() error { return b.command(env, b.plash, "export-docker", id, ref) },
			clean: func() error { return os.RemoveAll(path) },
		}
	}
	cp := &contender{
		name: "cp", do: func() error { return b.command(nil, "cp", b.tar, copied) },
		clean: func() error { return os.Remove(copied) },
	}
	synced := &contender{
		name: "cp and fsync", do: func() error {
			return b.command(nil, "sh", "-c", fmt.Sprintf("cp '%s' '%s' && sync '%s'", b.tar, copied, copied))
		},
		clean: func() error { return os.Remove(copied) },
	}
	cs := []*contender{cp, synced, export("docker-archive", "docker-archive:"+archive, archive), export("oci-archive", "oci-archive:"+archive, archive), export("oci", "oci:"+layout, layout)}
	if err := b.race(cs); err != nil {
		return err
	}
	return b.report(timesTable("From a container to an image's files", cs, cp, synced))
}

// benchArchive compares importing an archive with the engines' loading it.
func (b *bench) benchArchive(env []string, id string, fresh func() error) error {
	archive := filepath.Join(b.dir, "image.tar")
	if err := b.command(env, b.plash, "export-docker", id, "docker-archive:"+archive+":plash-bench"); err != nil {
		return err
	}
	sum := &contender{name: "sha256 in Go", do: func() error { return hashFile(archive) }}
	ours := &contender{
		name: "plash import-docker", prepare: fresh,
		do: func() error { return b.command(env, b.plash, "import-docker", "docker-archive:"+archive) },
	}
	engines, stop, err := b.engines()
	defer stop()
	if err != nil {
		return err
	}
	cs := append([]*contender{sum, ours}, engines...)
	if err := b.race(cs); err != nil {
		return err
	}
	return b.report(timesTable("From a Docker archive to a container", cs, sum, ours))
}

// benchPull compares pulling an image from a registry of this machine with what it takes at least: unpacking its
// layers and hashing them, on all cores.
func (b *bench) benchPull(env []string, fresh func() error) (err error) {
	registry, stop, err := b.startRegistry()
	if err != nil {
		return err
	}
	defer stop()
	id, err := b.severalLayers(env)
	if err != nil {
		return err
	}
	ref := registry + "/ten:1"
	if err := b.command(env, b.plash, "push", id, ref); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "skopeo")
	away := func() error { return os.RemoveAll(dir) }
	skopeo := func() error {
		return b.command(nil, "skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)
	}
	packed := filepath.Join(b.dir, "packed")
	if err := b.command(nil, "skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "dir:"+packed); err != nil {
		return err
	}
	floor := &contender{name: "gzip -d and sha256sum, on all cores", do: func() error {
		return b.command(nil, "sh", "-c", fmt.Sprintf("find '%s' -size +64k -print0 | xargs -0 -n 1 -P \"$(nproc)\" sh -c 'gzip -dc <\"$0\" | sha256sum'", packed))
	}}
	copied := &contender{name: "skopeo copy to a directory", do: skopeo, clean: away}
	ours := &contender{
		name: "plash import-docker", prepare: fresh,
		do: func() error { return b.command(env, b.plash, "import-docker", "docker://"+ref) },
	}
	cs := []*contender{floor, copied, ours}
	if err := b.race(cs); err != nil {
		return err
	}
	return b.report(timesTable(fmt.Sprintf("From a registry on the loopback interface to a container, %d layers", layersOfPull), cs, floor, copied))
}

// severalLayers makes a container of the image's regular files, in layers that are of one size.
func (b *bench) severalLayers(env []string) (id string, err error) {
	tree := filepath.Join(b.dir, "files")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	defer func() {
		if rerr := os.RemoveAll(tree); err == nil {
			err = rerr
		}
	}()
	if err := b.command(nil, "tar", "-x", "-C", tree, "-f", b.tar); err != nil {
		return "", err
	}
	fi, err := os.Stat(b.tar)
	if err != nil {
		return "", err
	}
	part, total := func(n int) string { return filepath.Join(b.dir, "files", "layer"+strconv.Itoa(n)) }, int64(0)
	err = filepath.WalkDir(filepath.Join(tree, "usr"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		to := filepath.Join(part(min(int(total*layersOfPull/fi.Size()), layersOfPull-1)), rel)
		total += info.Size()
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.Rename(path, to)
	})
	if err != nil {
		return "", err
	}
	id = "0"
	for n := range layersOfPull {
		if _, err := os.Stat(part(n)); os.IsNotExist(err) {
			continue
		}
		if id, err = b.output(env, b.plash, "add-layer", id, part(n)); err != nil {
			return "", err
		}
	}
	return id, nil
}

// startRegistry starts Debian's registry, and returns where it listens.
func (b *bench) startRegistry() (host string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	host = l.Addr().String()
	if err := l.Close(); err != nil { // and it listens there
		return "", nil, err
	}
	config := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(b.dir, "registry"), host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(b.ctx, "docker-registry", "serve", config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 100 {
		c, err := net.Dial("tcp", host)
		if err == nil {
			return host, stop, c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	return "", nil, fmt.Errorf("docker-registry does not listen at %s", host)
}
