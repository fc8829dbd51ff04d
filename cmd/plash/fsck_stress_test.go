package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestFsckMeanwhile has a store checked and repaired, also by processes that are killed, while others build,
// run and remove: nothing of that is a damage, and nothing is put aside.
func TestFsckMeanwhile(t *testing.T) {
	m := newMachine(t, serveImages(t))
	base := m.must("plash-import", "alpine")
	m.must("plash-map", "base", base)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				script := fmt.Sprintf("echo %d %d > /file; rm -f /bin/x", worker, i)
				id, err := m.run("plash-build", "--image", "@base", "--run", script, "--layer", "--run", "rm /file")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := m.run("plash-run", id, "true"); err != nil {
					t.Error(err)
				}
				if _, err := m.run("plash-rm", id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 12 {
		args := []string{"plash-fsck", "--repair"}
		switch i % 3 {
		case 0:
			args = args[:1]
		case 1:
			m.kill(rnd, args)
		}
		if out, err := m.run(args[0], args[1:]...); err != nil || out != "" {
			t.Errorf("%v: %v: %s", args, err, out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(done)
	wg.Wait()
	m.must("plash-shrink")
	m.sound()
}
