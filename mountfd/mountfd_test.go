package mountfd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/mountfd/leftover"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

func tmpfs(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	c, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("fsopen: %v", err)
	}
	defer unix.Close(c)
	if err := unix.FsconfigCreate(c); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestMount attaches mounts of both kinds, which stay when they are closed.
func TestMount(t *testing.T) {
	for name, m := range map[string]Mount{
		"detached": Of(tmpfs(t)),
		"later":    Later(func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }),
	} {
		t.Run(name, func(t *testing.T) {
			if got := m.FD() >= 0; got != (name == "detached") {
				t.Errorf("before it is attached, the descriptor is %d", m.FD())
			}
			dir := t.TempDir()
			if err := m.AttachTo(dir); err != nil {
				t.Fatal(err)
			}
			var at, by unix.Stat_t
			if err := errors.Join(unix.Stat(dir, &at), unix.Fstat(m.FD(), &by)); err != nil || at.Dev != by.Dev {
				t.Errorf("the directory is on device %d, the descriptor on %d, %v", at.Dev, by.Dev, err)
			}
			if err := errors.Join(m.Close(), m.Close()); err != nil || m.FD() != -1 {
				t.Errorf("closed twice: %v, and the descriptor is %d", err, m.FD())
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoDirectory says what is wrong with the place.
func TestNoDirectory(t *testing.T) {
	m := Of(tmpfs(t))
	defer m.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.AttachTo(file); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("attached to a file: %v", err)
	}
	if err := m.AttachTo(file + "/none"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("attached below a file: %v", err)
	}
	if err := m.AttachTo(filepath.Dir(file) + "/none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("attached to nothing: %v", err)
	}
}
