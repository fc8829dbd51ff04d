package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/ids"
)

// userNamespaces says whether the caller can have one to mount in.
func userNamespaces(refused error) Mechanism {
	if refused != nil {
		return Mechanism{Name: "user namespaces", Detail: reasonOf(refused), Hint: userNamespaceHint()}
	}
	return Mechanism{Name: "user namespaces", Works: true}
}

// subordinateIDs says whether builds have all ids that an image may have.
func subordinateIDs() Mechanism {
	m := Mechanism{Name: "subordinate ids"}
	if ids.HasCapabilities(unix.CAP_SETUID, unix.CAP_SETGID) {
		m.Works, m.Detail = true, "this process may map ids itself"
		return m
	}
	uid := os.Geteuid()
	uids, _, err := ids.Subordinate(uid)
	if err != nil {
		m.Detail, m.Hint = strings.TrimPrefix(err.Error(), ids.ErrNoSubordinate.Error()+": "), ids.SubordinateHint(uid)
		return m
	}
	m.Works = true
	for _, r := range uids {
		m.Detail += fmt.Sprintf(" %d-%d", r.HostID, r.HostID+r.Size-1)
	}
	m.Detail = strings.TrimSpace(m.Detail)
	return m
}

// sysctl reads a kernel setting, "" if the kernel does not have it.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// userNamespaceHint says how to get user namespaces on hosts that are known to forbid them.
func userNamespaceHint() string {
	switch {
	case sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
		// Ubuntu since 23.10: only programs with a profile that says so.
		exe, err := os.Readlink("/proc/self/exe")
		if err != nil {
			exe = "/usr/local/bin/plash"
		}
		return "let AppArmor allow them for plash: printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile plash " + exe +
			" flags=(unconfined) {\\n  userns,\\n}\\n' | sudo tee /etc/apparmor.d/plash && sudo apparmor_parser -r /etc/apparmor.d/plash"
	case sysctl("user.max_user_namespaces") == "0":
		return "sudo sysctl user.max_user_namespaces=15000 (and for the next boot: echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/userns.conf)"
	case sysctl("kernel.unprivileged_userns_clone") == "0":
		return "sudo sysctl kernel.unprivileged_userns_clone=1"
	case inContainer():
		return dockerFlags
	}
	return ""
}

// dockerFlags let a container do what plash does best with.
const dockerFlags = "docker run --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined …"

// fuseHint says how to get FUSE.
func fuseHint() string {
	fi, err := os.Stat("/dev/fuse")
	switch {
	case err == nil && fi.Mode().Perm()&0o006 != 0o006 && os.Geteuid() != 0:
		return "sudo chmod 666 /dev/fuse"
	case inContainer():
		return dockerFlags
	case err != nil:
		return "sudo modprobe fuse"
	}
	return ""
}

// inContainer tells whether this is a container of Docker, Podman or Kubernetes.
func inContainer() bool {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// fusermount looks for the program that mounts for plain users where all see it.
func fusermount() Mechanism {
	m := Mechanism{Name: "fusermount3"}
	path, err := exec.LookPath("fusermount3")
	if err != nil {
		m.Detail, m.Hint = "not installed: users mount by it where all their processes see it", "sudo apt-get install fuse3"
		return m
	}
	m.Works, m.Detail = true, path
	return m
}

// chroot tries whether this process may change its root.
func chroot() Mechanism {
	m := Mechanism{Name: "chroot"}
	if err := unix.Chroot("/"); err != nil { // changes nothing
		m.Detail = err.Error()
		return m
	}
	m.Works = true
	return m
}

// prootProgram looks for the program that stands in where there are neither mounts nor namespaces,
// and is of no use where there are.
func prootProgram(better bool) Mechanism {
	m := Mechanism{Name: "proot"}
	path, err := exec.LookPath("proot")
	if err != nil {
		m.Detail = "not installed: the last resort, without mounts and namespaces"
		if !better {
			m.Hint = "sudo apt-get install proot"
		}
		return m
	}
	if out, err := exec.Command(path, "-r", "/", "true").CombinedOutput(); err != nil {
		m.Detail = fmt.Sprintf("%s: %v: %s", path, err, strings.TrimSpace(string(out)))
		return m
	}
	m.Works, m.Detail = true, path
	return m
}
