// Package bundle makes OCI bundles of containers, and calls the programs that run
// them, runc and crun.
//
// A bundle is a directory with config.json, the root filesystem rootfs, and the files
// hosts and resolv.conf that are mounted in it (OCI runtime specification, bundle.md). What
// is isolated, and what is not:
//   - Namespaces for processes, IPC, host name, mounts and control groups. The network is
//     the host's: so a container is of use without a daemon that makes bridges.
//   - Capabilities are those that Podman gives. As without a control group of its own there is
//     no list of allowed devices, a run must mount the root with nodev, and nobody
//     may make devices.
//   - Paths of /proc and /sys that tell of the host, or change it, are masked or
//     read-only, as Docker has them. There is no seccomp filter.
//
// It mounts nothing itself and knows neither stores nor layers: package runtime brings the
// root and the namespaces.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The names of what is in a bundle.
const (
	RootDir    = "rootfs"
	ConfigFile = "config.json"
	hostsFile  = "hosts"
	resolvFile = "resolv.conf"
)

// Write writes a bundle into a directory: all but the root filesystem. The
// configuration comes last, whole or not at all: a directory without it is no bundle.
func Write(dir string, c Container) error {
	if err := c.supply(dir); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, RootDir), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := writeConfig(dir, c.spec()); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

func writeConfig(dir string, spec *specs.Spec) error {
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+ConfigFile)
	if err := os.WriteFile(tmp, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, ConfigFile))
}

// supply writes the files that are mounted over those of the image. An image has none that
// would be true here.
func (c *Container) supply(dir string) error {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err != nil {
		hosts = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
	}
	hosts = fmt.Appendf(hosts, "127.0.0.1\t%s\n", c.Name)
	if err := os.WriteFile(filepath.Join(dir, hostsFile), hosts, 0o644); err != nil {
		return err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		c.resolv = true
		err = os.WriteFile(filepath.Join(dir, resolvFile), resolv, 0o644)
	}
	return err
}
