package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func testTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, size := range map[string]int{"a": 10, "usr/b": 5000, "usr/sub/c": 1 << 20, "usr/sub/empty": 0} {
		if err := put(filepath.Join(dir, name), strings.Repeat("x", size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWalkAndRead(t *testing.T) {
	dir := testTree(t)
	want := tally{entries: 7, bytes: 10 + 5000 + 1<<20}
	files := 0
	got, err := walk(dir, func(string, int64) { files++ })
	if err != nil || got != want || files != 4 {
		t.Errorf("walk: %+v, %d files, %v", got, files, err)
	}
	if got, err := readAll(dir); err != nil || got != want {
		t.Errorf("read: %+v, %v", got, err)
	}
	if err := got.stays(tally{}); err == nil {
		t.Error("another tree was taken for the same")
	}
}

func TestDirentsCutShort(t *testing.T) {
	for _, buf := range [][]byte{make([]byte, 5), make([]byte, 24), append(make([]byte, 16), 200, 0, 0, 0)} {
		if _, err := appendDirents(nil, buf); err == nil {
			t.Errorf("no error for % x", buf)
		}
	}
}

func TestRandomPlan(t *testing.T) {
	dir := testTree(t)
	p, err := newRandomPlan(dir, 1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newRandomPlan(dir, 1000, 1)
	if err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("the same seed gives another plan: %v", err)
	}
	if other, err := newRandomPlan(dir, 1000, 2); err != nil || reflect.DeepEqual(p, other) {
		t.Errorf("another seed gives the same plan: %v", err)
	}
	// 259 pages: one of a, two of b, 256 of c.
	large := 0
	for _, r := range p.reads {
		if p.files[r.file] == "usr/sub/c" {
			large++
		}
	}
	if large < 950 || large == 1000 {
		t.Errorf("%d of 1000 reads are of the file that has 256 of 259 pages", large)
	}
	o, err := p.open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{1, 4} {
		if err := o.read(threads); err != nil {
			t.Error(err)
		}
	}
	// A file that is shorter than it should be.
	if err := os.Truncate(filepath.Join(dir, "usr/sub/c"), 100); err != nil {
		t.Fatal(err)
	}
	if err := o.read(2); err == nil {
		t.Error("short reads were not noticed")
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
}
