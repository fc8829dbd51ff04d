package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// benchUnion measures work in a writable root filesystem, in every way to have one.
func benchUnion(b *bench) error {
	im, err := b.newImage()
	if err != nil {
		return err
	}
	err = b.raceUnion(im)
	return errors.Join(err, im.undo.run())
}

// job is one thing to be done in the root, by its own programs.
type job struct {
	name   string
	script string
}

// jobs follow one another in the same root.
var jobs = []job{
	{"unpack", "tar -x -C /root -f /bench/source.tar"},
	{"compile", fmt.Sprintf("make -s -j2 -C /root/source/prog && test $(ls /root/source/prog/*.o | wc -l) -eq %d && /root/source/prog/prog >/dev/null", cFiles)},
	{"git clone", "git clone -q /bench/source.git /root/clone"},
	{"git status", `test -z "$(git -C /root/clone status --porcelain)"`},
	{"dpkg -i", "dpkg -i /bench/*.deb >/dev/null"},
	{"rm -r", "rm -r /root/source /root/clone"},
}

// warmup touches the programs of the jobs, so that the first that uses one does not
// pay for reading it.
const warmup = `mkdir /root/warmup && cd /root/warmup && echo 'int main(void) { return 0; }' > a.c && echo 'a: a.c; gcc -O1 -o a a.c' > Makefile &&
	make -s && git init -q . && git status >/dev/null && dpkg --version >/dev/null && tar -c . >/dev/null && cd / && rm -r /root/warmup`

func (b *bench) raceUnion(im *image) (err error) {
	w, err := b.newWork()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	overlay := "lowerdir=" + im.tree + ",upperdir=UPPER,workdir=WORK"
	roots := []*view{
		{name: "kernel overlayfs on ext4", mount: b.kernel("-t", "overlay", "-o", overlay, "overlay", "DIR")},
		{name: "plash erofs", mount: b.ours(im.store, im.id, "erofs", true)},
		{name: "plash fuse", mount: b.ours(im.store, im.id, "fuse", true)},
		{name: "plash union", mount: b.ours(im.store, im.id, "union", true)},
	}
	if have("fuse-overlayfs") {
		roots = append(roots, &view{name: "fuse-overlayfs", mount: b.fuse("fuse-overlayfs", "-f", "-o", overlay, "DIR")})
	}
	var cs []*contender
	t := table{Title: "Work in a writable root filesystem", Baselines: []string{roots[0].name}}
	for _, j := range jobs {
		t.Columns = append(t.Columns, column{j.name, "ms"})
	}
	for _, v := range roots {
		cs = append(cs, b.working(v, w))
	}
	if err := b.race(cs); err != nil {
		return err
	}
	for i, v := range roots {
		var cells []timed
		for j := range jobs {
			cells = append(cells, timed{cs[i], j, 0})
		}
		t.Rows = append(t.Rows, newRow(v.name, cells...))
	}
	t.compare()
	return b.report(t)
}

// working is the contender that does all jobs in a fresh root.
func (b *bench) working(v *view, w *work) *contender {
	m := &mounted{}
	var do []func() error
	for _, j := range jobs {
		do = append(do, func() error { return b.inRoot(m.dir, j.script) })
	}
	return &contender{
		name: v.name, mayFail: true,
		prepare: func() error {
			fresh, err := v.mount()
			if err != nil {
				return err
			}
			*m = *fresh
			err = b.furnish(m, w)
			if err == nil {
				err = b.inRoot(m.dir, warmup)
			}
			unix.Sync() // or what was left to write is written while the next one is measured
			if err != nil {
				err = errors.Join(err, m.away())
			}
			return err
		},
		do: do[0], more: do[1:],
		clean: m.away,
	}
}

// furnish gives a root the host's /dev and /proc, and the work.
func (b *bench) furnish(m *mounted, w *work) error {
	for _, bind := range []struct{ from, to string }{{"/dev", "dev"}, {"/proc", "proc"}, {w.dir, workDir}} {
		at := filepath.Join(m.dir, bind.to)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(bind.from, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s to %s: %w", bind.from, at, err)
		}
		m.undo.add(func() error { return unmount(at) })
	}
	return nil
}

// inRoot runs a script of the shell in a root filesystem, with an environment that does not
// depend on the host's.
func (b *bench) inRoot(root, script string) error {
	cmd := exec.CommandContext(b.ctx, "/bin/sh", "-e", "-c", script)
	cmd.Dir = "/"
	cmd.Env = strings.Fields("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	return runQuietly(cmd)
}
