package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hidden lists what has a name in the work directory only.
func (m *mounted) hidden() []string {
	m.tb.Helper()
	names, err := filepath.Glob(filepath.Join(m.work, "#gone-*"))
	must(m.tb, err)
	return names
}

// TestManyGone deletes more files that are in use than the server may keep descriptors of:
// all can be opened and changed, and are gone when they are not used.
func TestManyGone(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		const files = 120
		lower := t.TempDir()
		for i := range files / 2 {
			must(t, os.WriteFile(filepath.Join(lower, fmt.Sprint(i)), []byte("content"), 0o644))
		}
		m := newUnion(t, lower, o)
		m.unmount()
		m.files = 160
		m.mount()
		var fds []int
		for i := range files {
			if i >= files/2 {
				must(t, os.WriteFile(m.at(fmt.Sprint(i)), []byte("content"), 0o644))
			} else {
				must(t, os.Chmod(m.at(fmt.Sprint(i)), 0o600))
			}
			fd, err := unix.Open(m.at(fmt.Sprint(i)), unix.O_PATH|unix.O_CLOEXEC, 0)
			must(t, err)
			fds = append(fds, fd)
		}
		for i := range files {
			must(t, os.Remove(m.at(fmt.Sprint(i))))
		}
		if _, kept := m.nodes(); kept > int(m.files)/4 {
			t.Errorf("%d descriptors are kept", kept)
		}
		if len(m.hidden()) < files/2 {
			t.Errorf("in the work directory are only %q", m.hidden())
		}
		for _, fd := range fds {
			m.useGone(fd)
			must(t, unix.Close(fd))
		}
		for end := time.Now().Add(5 * time.Second); len(m.hidden()) > 0 && time.Now().Before(end); {
			m.forget()
			time.Sleep(10 * time.Millisecond)
		}
		if _, kept := m.nodes(); kept > 0 || len(m.hidden()) > 0 {
			t.Errorf("nobody uses them, and %d descriptors and %q are left", kept, m.hidden())
		}
	})
}

// useGone uses a file that has no name.
func (m *mounted) useGone(fd int) {
	m.tb.Helper()
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	b, err := os.ReadFile(path)
	if err == nil && string(b) != "content" {
		err = fmt.Errorf("it holds %q", b)
	}
	err = errors.Join(err, os.WriteFile(path, []byte("changed"), 0), os.Chmod(path, 0o640))
	var st unix.Stat_t
	err = errors.Join(err, unix.Fstat(fd, &st))
	if err != nil || st.Nlink != 0 || st.Mode != unix.S_IFREG|0o640 {
		m.tb.Errorf("a file without a name: %v, mode %o, %d links", err, st.Mode, st.Nlink)
	}
}
