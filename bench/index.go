package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/tarstream"
)

// benchIndex measures how fast entries are indexed, how large the index is, and how much
// memory that takes, on a seeded archive of a million small files.
func benchIndex(b *bench) error {
	const entries = 1_000_000
	path := filepath.Join(b.dir, "million.tar")
	if err := manyFiles(path, entries); err != nil {
		return err
	}
	defer os.Remove(path)
	dir := filepath.Join(b.dir, "store")
	if err := cas.Init(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := cas.Open(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	ctx := context.Background()
	st, err := s.Ingest(ctx, f, cas.IngestOptions{})
	if err != nil {
		return err
	}
	if err := st.Publish(); err != nil {
		return err
	}
	if err := st.Close(); err != nil {
		return err
	}
	goruntime.GC()
	var best time.Duration
	var index int64
	peak := watchMemory()
	for range b.rounds {
		ix, err := s.Index(ctx, st.Digest())
		if err != nil {
			return err
		}
		if fi, err := os.Stat(ix.Path()); err == nil {
			index = fi.Size()
		}
		if err := os.Remove(ix.Path()); err != nil {
			return err
		}
		if err := ix.Close(); err != nil {
			return err
		}
		start := time.Now()
		if ix, err = s.Index(ctx, st.Digest()); err != nil {
			return err
		}
		if d := time.Since(start); best == 0 || d < best {
			best = d
		}
		if err := ix.Close(); err != nil {
			return err
		}
	}
	return b.report(table{
		Title:   fmt.Sprintf("Index of %d entries, from the blob", entries),
		Columns: []column{{"indexing", "entries/s"}, {"index / blob", "%"}, {"heap, peak", "MB"}},
		Rows: []row{{Name: "plash", Cells: []*cell{
			{Value: entries / best.Seconds()}, {Value: 100 * float64(index) / float64(fi.Size())}, {Value: float64(peak()) / (1 << 20)},
		}}},
	})
}

// watchMemory samples what the heap holds until the function it returns is
// called, which tells the most it saw, in bytes.
func watchMemory() func() uint64 {
	done, result := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		for {
			var m goruntime.MemStats
			goruntime.ReadMemStats(&m)
			most = max(most, m.HeapSys-m.HeapReleased)
			select {
			case <-done:
				result <- most
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(done)
		return <-result
	}
}

// manyFiles writes an archive of small files in directories of a hundred.
func manyFiles(path string, entries int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	bw := bufio.NewWriterSize(f, 1<<20)
	w := tarstream.NewWriter(bw)
	body := make([]byte, 200)
	for i := range entries {
		e := tarstream.Entry{
			Name: fmt.Sprintf("usr/share/d%04d/file-%d-%x", i/100, i, rnd.Uint32()), Type: tarstream.TypeReg,
			Mode: 0o644, Size: int64(rnd.IntN(len(body))), MtimeSec: int64(rnd.Uint32()),
		}
		if err := w.WriteHeader(&e); err != nil {
			return err
		}
		if _, err := w.Write(body[:e.Size]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return bw.Flush()
}

// benchCommit measures turning an upper directory into a layer.
func benchCommit(b *bench) error {
	upper := filepath.Join(b.dir, "upper")
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(upper)
	if err := b.command(nil, "tar", "-x", "-C", upper, "-f", b.tar); err != nil {
		return err
	}
	store := filepath.Join(b.dir, "store")
	env := []string{"PLASH_DATA=" + store}
	base := &contender{name: "tar -c UPPER | sha256sum", do: func() error {
		return b.command(nil, "sh", "-c", fmt.Sprintf("tar -c -C '%s' . | sha256sum", upper))
	}}
	ours := &contender{
		name:    "plash add-layer 0 UPPER",
		prepare: func() error { return os.RemoveAll(store) },
		do:      func() error { return b.command(env, b.plash, "add-layer", "0", upper) },
	}
	cs := []*contender{base, ours}
	if err := b.race(cs); err != nil {
		return err
	}
	if err := b.report(timesTable("A directory becomes a layer", cs, base)); err != nil {
		return err
	}
	return os.RemoveAll(store)
}
