package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/runtime/ids"
)

// probed is what was found out by trying and does not work on a host, so that the next command
// need not try again. It lies in the store, and holds as long as nothing has changed that
// could change it.
type probed struct {
	Host      string          `json:"host"` // hostKey
	Unable    map[string]bool `json:"unable"`
	NoOverlay bool            `json:"noOverlay"`
}

// probedFile is where it lies in the store.
const probedFile = "host.json"

// hostKey stands for the host as this process has it: another boot, other rights, a filesystem
// that the kernel has learned, a device with another mode make another key.
func hostKey() string {
	h := sha256.New()
	fmt.Fprintln(h, os.Geteuid(), inUserNamespace(), ids.HasCapabilities(unix.CAP_SYS_ADMIN))
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/filesystems"} {
		b, err := os.ReadFile(path)
		fmt.Fprintln(h, string(b), err)
	}
	var st unix.Stat_t
	err := unix.Stat("/dev/fuse", &st)
	fmt.Fprintln(h, err, st.Ino, st.Mode, st.Uid, st.Gid, st.Ctim)
	// The last line of seccomp filters is that there are some.
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	fmt.Fprintln(h, mode, err)
	return hex.EncodeToString(h.Sum(nil))
}

// readProbed gives what is known of the host; nothing, if the store does not say.
func readProbed(s *cas.Store) probed {
	p := probed{Unable: map[string]bool{}}
	b, err := os.ReadFile(filepath.Join(s.Dir(), probedFile))
	if err != nil {
		return p
	}
	var known probed
	if json.Unmarshal(b, &known) == nil && known.Unable != nil && known.Host == hostKey() {
		return known
	}
	return p
}

// write keeps it. Knowing less only costs time, so it is not synced and errors do not count.
func (p *probed) write(s *cas.Store) {
	p.Host = hostKey()
	if b, err := json.Marshal(p); err == nil {
		_ = s.WriteHint(probedFile, b)
	}
}

// forgetProbed has everything tried again.
func forgetProbed(s *cas.Store) {
	_ = os.Remove(filepath.Join(s.Dir(), probedFile)) // it may not be there
}
