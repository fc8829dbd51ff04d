package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// benchMillion measures what plash's servers have in memory for an image of a million
// files, after all of it was looked at and read.
func (b *bench) benchMillion() (err error) {
	const entries = 1_000_000
	path := filepath.Join(b.dir, "million.tar")
	store := filepath.Join(b.dir, "million")
	defer func() { err = errors.Join(err, os.RemoveAll(path), os.RemoveAll(store)) }()
	if err := manyFiles(path, entries); err != nil {
		return err
	}
	id, err := b.output([]string{"PLASH_DATA=" + store}, b.plash, "import-tar", path)
	if err != nil {
		return err
	}
	t := table{Title: fmt.Sprintf("Memory of the servers for an image of %d files", entries), Columns: memoryColumns}
	for _, backend := range []string{"fuse", "union"} {
		rows, err := million(backend, b.ours(store, id, backend, backend == "union"))
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			rows = append(rows, row{Name: "plash " + backend, Error: firstLine(err), Cells: make([]*cell, len(memoryColumns))})
		}
		t.Rows = append(t.Rows, rows...)
	}
	return b.report(t)
}

// million gives the server's memory after the mount, after a walk, and after reading all.
func million(backend string, mount mounter) (rows []row, err error) {
	m, err := mount()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.away()) }()
	nothing := func(string) (tally, error) { return tally{}, nil }
	walked := func(dir string) (tally, error) { return walk(dir, nil) }
	for _, after := range []struct {
		what string
		do   func(dir string) (tally, error)
	}{{"mounted", nothing}, {"walked", walked}, {"read", readAll}} {
		if _, err := after.do(m.dir); err != nil {
			return rows, err
		}
		got, err := memoryOf(m.servers)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{Name: fmt.Sprintf("plash %s, %s", backend, after.what), Cells: got.cells()})
	}
	return rows, nil
}
