package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// benchAccess measures how fast the files of an image are found and read, in every way to
// show it, cold and warm.
func benchAccess(b *bench) error {
	im, err := b.newImage()
	if err != nil {
		return err
	}
	err = b.raceAccess(im)
	if rerr := im.undo.run(); err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	return b.benchMillion()
}

// image is the image in the forms that contenders want.
type image struct {
	tree  string // unpacked
	store string // of plash
	id    string // of the container in there
	undo  undos
}

func (b *bench) newImage() (im *image, err error) {
	im = &image{tree: filepath.Join(b.dir, "tree"), store: filepath.Join(b.dir, "store")}
	defer func() {
		if err != nil {
			err = errors.Join(err, im.undo.run())
		}
	}()
	im.undo.add(func() error { return errors.Join(os.RemoveAll(im.tree), os.RemoveAll(im.store)) })
	if err := os.Mkdir(im.tree, 0o755); err != nil {
		return nil, err
	}
	if err := b.command(nil, "tar", "-x", "-C", im.tree, "-f", b.tar); err != nil {
		return nil, err
	}
	im.id, err = b.output([]string{"PLASH_DATA=" + im.store}, b.plash, "import-tar", b.tar)
	return im, err
}

// A view is one way to show the image, with what was measured of it.
type view struct {
	name   string
	mount  mounter
	memory *memory // of its servers, at most, after everything was read
	parts  []*contender
}

// views are all ways to show the image, the baseline first.
func (b *bench) views(im *image) ([]*view, error) {
	overlay := "lowerdir=" + im.tree + ",upperdir=UPPER,workdir=WORK"
	all := []*view{
		{name: "ext4 directory", mount: inPlace(im.tree)},
		{name: "kernel overlayfs on it", mount: b.kernel("-t", "overlay", "-o", overlay, "overlay", "DIR")},
		{name: "plash erofs", mount: b.ours(im.store, im.id, "erofs", false)},
		{name: "plash erofs, upper directory", mount: b.ours(im.store, im.id, "erofs", true)},
		{name: "plash fuse", mount: b.ours(im.store, im.id, "fuse", false)},
		{name: "plash fuse, upper directory", mount: b.ours(im.store, im.id, "fuse", true)},
		{name: "plash union", mount: b.ours(im.store, im.id, "union", true)},
	}
	if have("mksquashfs") {
		squash := filepath.Join(b.dir, "image.squashfs")
		im.undo.add(func() error { return os.RemoveAll(squash) })
		if err := b.command(nil, "mksquashfs", im.tree, squash, "-comp", "zstd", "-noappend", "-quiet", "-no-progress"); err != nil {
			return nil, err
		}
		all = append(all, &view{name: "kernel squashfs, zstd", mount: b.kernel("-t", "squashfs", "-o", "loop,ro", squash, "DIR")})
		if have("squashfuse_ll") {
			all = append(all, &view{name: "squashfuse_ll, zstd", mount: b.fuse("squashfuse_ll", "-f", squash, "DIR")})
		}
	}
	if erofsfuse := b.erofsfuse(); erofsfuse != nil {
		index, blob, err := im.indexAndBlob()
		if err != nil {
			return nil, err
		}
		args := append(erofsfuse[1:], "-f", "--device="+blob, index, "DIR")
		all = append(all, &view{name: "erofsfuse on plash's index", mount: b.fuse(erofsfuse[0], args...)})
	}
	if have("fuse-overlayfs") {
		all = append(all, &view{name: "fuse-overlayfs", mount: b.fuse("fuse-overlayfs", "-f", "-o", overlay, "DIR")})
	}
	return all, nil
}

// erofsfuse is the command of that name: the machine's, or else that of Debian 13, as
// there is none in Debian 12. It is nil where there is neither.
func (b *bench) erofsfuse() []string {
	const script = "scripts/debian13"
	if have("erofsfuse") {
		return []string{"erofsfuse"}
	}
	if b.command(nil, script, "erofsfuse", "--prepare") != nil {
		return nil
	}
	return []string{script, "erofsfuse", "usr/bin/erofsfuse"}
}

// indexAndBlob finds the files of the only layer in the store.
func (im *image) indexAndBlob() (index, blob string, err error) {
	for _, f := range []struct {
		to      *string
		pattern string
	}{{&index, "index/sha256/*.erofs"}, {&blob, "blobs/sha256/*"}} {
		found, err := filepath.Glob(filepath.Join(im.store, f.pattern))
		if err != nil {
			return "", "", err
		}
		if len(found) != 1 {
			return "", "", fmt.Errorf("%d files %s in %s, expected 1", len(found), f.pattern, im.store)
		}
		*f.to = found[0]
	}
	return index, blob, nil
}

// raceAccess lets the views race. Each round has three parts: to be walked, to be
// read, and to be read at random, each first cold and then again.
func (b *bench) raceAccess(im *image) error {
	all, err := b.views(im)
	if err != nil {
		return err
	}
	want, err := newExpected(im.tree)
	if err != nil {
		return err
	}
	var cs []*contender
	for _, part := range []func(*view, *expected) *contender{(*view).walking, (*view).reading, (*view).readingAtRandom} {
		for _, v := range all {
			c := part(v, want)
			v.parts = append(v.parts, c)
			cs = append(cs, c)
		}
	}
	if err := b.race(cs); err != nil {
		return err
	}
	if err := b.report(accessTable(all)); err != nil {
		return err
	}
	return b.report(memoryTable("Memory of the servers, after everything was read", all))
}

// expected is what every view must show.
type expected struct {
	tree, usr tally
	plan      randomPlan
}

func newExpected(tree string) (want *expected, err error) {
	want = &expected{}
	if want.tree, err = walk(tree, nil); err != nil {
		return nil, err
	}
	if want.usr, err = readAll(filepath.Join(tree, "usr")); err != nil {
		return nil, err
	}
	want.plan, err = newRandomPlan(tree, randomReads, 1)
	return want, err
}

// cold is a contender that begins with a fresh mount and empty caches. What is measured
// first is done twice before, on other mounts: below this kernel's caches there may be
// a hypervisor's, in which who reads the same blocks as the contender before him
// would find them, and others not (that alone made 0.44 s of 1.1). Twice, since
// Linux keeps rather what was read twice. open, if it is not nil, comes after each mount.
func (v *view) cold(m *mounted, open, do func() error, more ...func() error) *contender {
	mount := func() error {
		if err := dropCaches(); err != nil {
			return err
		}
		fresh, err := v.mount()
		if err != nil {
			return err
		}
		*m = *fresh
		if open == nil {
			return nil
		}
		if err := open(); err != nil {
			return errors.Join(err, m.away())
		}
		return nil
	}
	return &contender{
		name: v.name, mayFail: true,
		prepare: func() error {
			for range 2 {
				if err := mount(); err != nil {
					return err
				}
				if err := errors.Join(do(), m.away()); err != nil {
					return err
				}
			}
			return mount()
		},
		do: do, more: more,
		clean: m.away,
	}
}

func (v *view) walking(want *expected) *contender {
	m := &mounted{}
	do := func() error {
		got, err := walk(m.dir, nil)
		return errors.Join(err, got.stays(want.tree))
	}
	return v.cold(m, nil, do, do)
}

func (v *view) reading(want *expected) *contender {
	m := &mounted{}
	do := func() error {
		got, err := readAll(filepath.Join(m.dir, "usr"))
		return errors.Join(err, got.stays(want.usr))
	}
	c := v.cold(m, nil, do, do)
	c.clean = func() error { return errors.Join(v.measureMemory(m), m.away()) }
	return c
}

func (v *view) readingAtRandom(want *expected) *contender {
	m, o := &mounted{}, &openPlan{}
	open := func() (err error) {
		if o, err = want.plan.open(m.dir); err == nil {
			m.undo.add(o.close)
		}
		return err
	}
	return v.cold(m, open, func() error { return o.read(randomThreads) }, func() error { return o.read(1) })
}

// measureMemory keeps the most that the servers had in memory in any round.
func (v *view) measureMemory(m *mounted) error {
	if len(m.servers) == 0 {
		return nil
	}
	got, err := memoryOf(m.servers)
	if err == nil && (v.memory == nil || got.rss > v.memory.rss) {
		v.memory = &got
	}
	return err
}

func accessTable(all []*view) table {
	t := table{
		Title: "Access to the files of an image",
		Columns: []column{
			{"cold walk", "ms"},
			{"warm walk", "ms"},
			{"cold read of /usr", "ms"},
			{"warm read of /usr", "ms"},
			{fmt.Sprintf("random 4 KiB reads, cold, %d threads", randomThreads), "/s"},
			{"random 4 KiB reads, warm, 1 thread", "/s"},
		},
		Baselines: []string{all[0].name},
	}
	for _, v := range all {
		walk, read, random := v.parts[0], v.parts[1], v.parts[2]
		t.Rows = append(t.Rows, newRow(v.name, timed{walk, 0, 0}, timed{walk, 1, 0}, timed{read, 0, 0}, timed{read, 1, 0},
			timed{random, 0, randomReads}, timed{random, 1, randomReads}))
	}
	t.compare()
	return t
}

func memoryTable(title string, all []*view) table {
	t := table{Title: title, Columns: memoryColumns}
	for _, v := range all {
		if v.memory != nil {
			t.Rows = append(t.Rows, row{Name: v.name, Cells: v.memory.cells()})
		}
	}
	return t
}
