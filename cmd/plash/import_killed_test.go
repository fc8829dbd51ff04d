package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tarOf makes a tar of files, given as names and contents by turns.
func tarOf(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layersArchive is an archive of docker save with n layers, of which number i has the file f<i>.
func layersArchive(t testing.TB, n int) []byte {
	t.Helper()
	var members, diffs, names []string
	for i := range n {
		layer := string(tarOf(t, fmt.Sprintf("f%d", i), strings.Repeat(fmt.Sprint(i), 50_000)))
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		diffs = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(layer))))
		members = append(members, names[i], layer)
	}
	config, err := json.Marshal(map[string]any{"os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal([]map[string]any{{"Config": "config.json", "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, append(members, "config.json", string(config), "manifest.json", string(list))...)
}

// TestImportKilled kills imports of an image with kill -9 at any moment: what is there then is whole, and
// the next import goes on from it.
func TestImportKilled(t *testing.T) {
	m := newMachine(t, images{})
	const layers = 20
	archive := filepath.Join(m.work, "image.tar")
	if err := os.WriteFile(archive, layersArchive(t, layers), 0o644); err != nil {
		t.Fatal(err)
	}
	m.must("plash-init")
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	killed := 0
	for i := range rounds {
		cmd, _, _ := m.command("plash-import-docker", "--refresh", "docker-archive:"+archive)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(20*(i%10+1))) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if cmd.Wait() != nil {
			killed++
		}
		for _, id := range strings.Fields(m.must("plash-list", "-q")) {
			m.must("plash-export-tar", id, os.DevNull)
		}
		if i%3 == 2 {
			m.must("plash-purge", "--yes")
		}
	}
	if killed == 0 {
		t.Error("every import was done before it was killed")
	}
	id := m.must("plash-import-docker", "docker-archive:"+archive)
	out, err := m.run("plash-export-tar", id, "-")
	if err != nil {
		t.Fatal(err)
	}
	for i := range layers {
		if !strings.Contains(out, strings.Repeat(fmt.Sprint(i), 50_000)) {
			t.Errorf("f%d is not in the container, or has other content", i)
		}
	}
	if again := m.must("plash-import-docker", "--refresh", "docker-archive:"+archive); again != id {
		t.Errorf("imported again: container %s, want %s", again, id)
	}
	if left, err := filepath.Glob(filepath.Join(m.work, "store/scratch/*")); err != nil || len(left) > 0 {
		t.Errorf("scratch space: %v, %v", left, err)
	}
}
