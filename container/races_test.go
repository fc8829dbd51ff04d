package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
)

// workerEnv makes the test binary work on the store it names, see work.
const workerEnv = "PLASH_TEST_WORKER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerEnv); dir != "" {
		if err := work(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work creates and removes containers until a line on standard input (or its
// end) stops it, and prints the id of each it has created.
func work(dir string) error {
	cs, err := cas.Open(dir)
	if err != nil {
		return err
	}
	s, err := Open(cs)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() {
		bufio.NewReader(os.Stdin).ReadByte()
		close(stop)
	}()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		id, err := step(context.Background(), s)
		if err != nil {
			return err
		}
		if id > 0 {
			fmt.Println(id)
		}
	}
}

// step creates a container on a random one, or removes one. The id is 0 if
// another process was quicker with what it had chosen.
func step(ctx context.Context, s *Store) (ID, error) {
	list, err := s.List()
	if err != nil {
		return 0, err
	}
	var parent ID
	if len(list) > 0 && rand.N(4) > 0 {
		parent = list[rand.N(len(list))].ID
	}
	if len(list) > 12 || parent > 0 && rand.N(4) == 0 {
		err := s.Remove(ctx, list[rand.N(len(list))].ID)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return 0, err
	}
	content := fmt.Sprint(rand.N(5))
	r, err := tryCreate(ctx, s, parent, content, "key "+content)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, err := s.Chain(r.ID); err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	return r.ID, nil
}

// startWorker starts a process that does work, and passes on the ids it prints.
func startWorker(t *testing.T, s *Store, ids chan<- ID) (*exec.Cmd, func() error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), workerEnv+"="+s.cas.Dir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			id, ok := parseID(lines.Text())
			if !ok {
				t.Errorf("worker: %s", lines.Text())
				continue
			}
			ids <- id
		}
	}()
	return cmd, func() error {
		err := stdin.Close()
		<-read
		return errors.Join(err, cmd.Wait())
	}
}

// unique collects ids until the channel is closed, and reports those it saw twice.
func unique(t *testing.T, ids <-chan ID) (done <-chan int) {
	t.Helper()
	n := make(chan int)
	go func() {
		seen := map[ID]bool{}
		for id := range ids {
			if seen[id] {
				t.Errorf("id %d was given twice", id)
			}
			seen[id] = true
		}
		n <- len(seen)
	}()
	return n
}

func TestRacingProcesses(t *testing.T) {
	s := newStore(t)
	ids := make(chan ID)
	seen := unique(t, ids)
	var finish []func() error
	for range 4 {
		_, end := startWorker(t, s, ids)
		finish = append(finish, end)
	}
	time.Sleep(700 * time.Millisecond)
	for _, end := range finish {
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	close(ids)
	if n := <-seen; n < 4 {
		t.Errorf("only %d containers were made", n)
	}
}

func TestKilledProcesses(t *testing.T) {
	s := newStore(t)
	ids := make(chan ID)
	seen := unique(t, ids)
	_, end := startWorker(t, s, ids) // this one lives
	for range 25 {
		cmd, reap := startWorker(t, s, ids)
		time.Sleep(5*time.Millisecond + rand.N(35*time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		reap() // an error: it was killed
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	close(ids)
	t.Logf("%d containers were made", <-seen)

	// What is left over is swept, and the work can go on.
	if err := s.cas.Reclaim(); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range names(t, s.path(locksDir)) {
		t.Errorf("left in locks: %s", f)
	}
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]bool{}
	for _, r := range list {
		needed[r.Layer.Encoded()] = true
	}
	for _, b := range names(t, s.path("blobs/sha256")) {
		if !needed[b] {
			t.Errorf("blob %s is needed by no one", b)
		}
	}
	if ids := names(t, s.path(idsDir)); len(ids) != len(list) {
		t.Errorf("%d files in ids/ for %d containers", len(ids), len(list))
	}
	last := create(t, s, 0, "after all").ID
	for _, r := range list {
		if r.ID >= last {
			t.Errorf("id %d came after %d", last, r.ID)
		}
	}
}

func TestRacingGoroutines(t *testing.T) {
	s := newStore(t)
	ids := make(chan ID)
	seen := unique(t, ids)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 5 {
				id, err := step(t.Context(), s)
				if err != nil {
					t.Error(err)
				}
				if id > 0 {
					ids <- id
				}
			}
		})
	}
	wg.Wait()
	close(ids)
	<-seen
}

// Many create on a container that goes away in the middle: each succeeds or is
// told that it is gone, and nothing of it stays.
func TestParentRemovedMeanwhile(t *testing.T) {
	s := newStore(t)
	parent := create(t, s, 0, "parent").ID
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for {
				time.Sleep(rand.N(5 * time.Millisecond))
				_, err := tryCreate(t.Context(), s, parent, fmt.Sprint(i))
				if errors.Is(err, ErrNotFound) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := s.Remove(t.Context(), parent); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

func TestIDsAreNeverReused(t *testing.T) {
	s := newStore(t)
	for want := ID(1); want <= 3; want++ {
		if id := create(t, s, 0, "x", fmt.Sprint("key ", want)).ID; id != want {
			t.Fatalf("id %d, want %d", id, want)
		}
		if err := s.Remove(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id := create(t, s, 0, "x").ID; id != 4 {
		t.Errorf("id %d after a purge, want 4", id)
	}
	create(t, s, 4, "y")
	next := s.path(nextFile)
	for _, c := range []struct {
		what, content string
		want          ID
	}{
		{"lost", "", 6},
		{"nonsense", "nonsense\n", 7},
		{"too old", fmt.Sprintf("%020d\n", 5), 8},
		{"zero", fmt.Sprintf("%020d\n", 0), 9},
		{"cut", fmt.Sprintf("%019d\n", 4), 10},
	} {
		if err := os.Remove(next); err != nil {
			t.Fatal(err)
		}
		if c.content != "" {
			if err := os.WriteFile(next, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if id := create(t, s, 0, "x").ID; id != c.want {
			t.Errorf("counter %s: id %d, want %d", c.what, id, c.want)
		}
	}
	// What a key points to counts too, and so does what only the tree knows.
	if err := os.WriteFile(s.path(keyPath(namesDir, "gone")), keyFile{50, "gone"}.encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	if id := create(t, s, 0, "x").ID; id != 51 {
		t.Errorf("id %d, want 51", id)
	}
	if err := errors.Join(os.Remove(next), os.Remove(s.idFile(51))); err != nil {
		t.Fatal(err)
	}
	if id := create(t, s, 0, "x").ID; id != 52 {
		t.Errorf("id %d, want 52", id)
	}
	if err := os.WriteFile(s.idFile(51), []byte("0/51\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRemove(t *testing.T) {
	s := newStore(t)
	//  1 ─ 2 ─ 3      5 has the layer of 2, 6 that of 4
	//   └─ 4          7 stands alone
	for i, parent := range []ID{0, 1, 2, 1, 0, 5, 0} {
		create(t, s, parent, []string{"a", "b", "c", "d", "b", "d", "e"}[i])
	}
	layer := func(id ID) string {
		r, err := s.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		return s.cas.BlobPath(r.Layer)
	}
	shared, own := []string{layer(2), layer(4)}, []string{layer(1), layer(3), layer(7)}
	if err := s.Remove(t.Context(), 3, 1, 7, 2, 1); err != nil {
		t.Fatal(err)
	}
	for id := ID(1); id <= 7; id++ {
		_, err := s.Get(id)
		if want := id == 5 || id == 6; want != (err == nil) || !want && !errors.Is(err, ErrNotFound) {
			t.Errorf("container %d: %v", id, err)
		}
	}
	for _, b := range shared {
		if _, err := os.Stat(b); err != nil {
			t.Errorf("a blob that is needed: %v", err)
		}
	}
	for _, b := range own {
		if _, err := os.Stat(b); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a blob that no one needs is there (%v)", err)
		}
	}
}

func TestCollect(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "kept", "key")
	st := stage(t, s, strings.Repeat("published, and then the power went", 1000))
	if err := st.Publish(); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"ids/9": "0/1/9\n", "ids/10": "", keyPath(namesDir, "x"): "9\nx", keyPath(cacheDir, "y"): "9\ny", keyPath(cacheDir, "z"): "",
	} {
		if err := os.WriteFile(s.path(file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := s.Collect(t.Context())
	if err != nil || freed < st.Size() {
		t.Errorf("freed %d of %d, %v", freed, st.Size(), err)
	}
	for _, d := range []string{idsDir, cacheDir, "blobs/sha256"} {
		if left := names(t, s.path(d)); len(left) != 1 {
			t.Errorf("%s holds %q", d, left)
		}
	}
	if left := names(t, s.path(namesDir)); len(left) != 0 {
		t.Errorf("names: %q", left)
	}
	if id, ok, err := s.Lookup("key"); !ok || err != nil || id != 1 {
		t.Errorf("the key of what is kept: %d, %v, %v", id, ok, err)
	}
}

// A directory that cannot be written to, here because it is none any more, is an
// error that leaves nothing half made.
func TestCreateFails(t *testing.T) {
	for _, dir := range []string{idsDir, cacheDir, "containers/0"} {
		t.Run(dir, func(t *testing.T) {
			s := newStore(t)
			moved := filepath.Join(s.path(), "moved")
			if err := os.Rename(s.path(dir), moved); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.path(dir), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if r, err := tryCreate(t.Context(), s, 0, "x", "key"); err == nil {
				t.Errorf("created %+v", r)
			}
			if err := errors.Join(os.Remove(s.path(dir)), os.Rename(moved, s.path(dir))); err != nil {
				t.Fatal(err)
			}
			if list, err := s.List(); err != nil || len(list) != 0 {
				t.Errorf("List: %v, %v", list, err)
			}
			if left := names(t, s.path(idsDir)); len(left) != 0 {
				t.Errorf("ids: %v", left)
			}
			create(t, s, 0, "x")
		})
	}
}

func TestCanceled(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "x")
	unlock, err := s.cas.LockExclusive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	st := stage(t, s, "y")
	_, create := s.Create(ctx, 1, st, CreateOptions{})
	_, collect := s.Collect(ctx)
	for i, err := range []error{create, collect, s.Remove(ctx, 1), s.Purge(ctx)} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}
