package bundle

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// A Container is what a bundle is made of, besides the root filesystem.
type Container struct {
	Name     string                // the host name
	Image    container.ImageConfig // of which Entrypoint and Cmd are in Args
	Args     []string
	User     User
	Terminal bool
	Term     string // of the terminal, as TERM
	Binds    []Bind
	// UserNamespace says that the bundle is run in a user namespace, which may mount less. Owner
	// makes one: then files of the root belong to that user, who is root inside.
	UserNamespace bool
	Owner         *Owner
	// Devices says that a control group of the container's own restricts devices.
	Devices bool
	// Prepare is a command that is called in the container's mount namespace before its root
	// becomes one (OCI runtime specification, config.md, createContainer hooks); nil for none.
	Prepare []string

	resolv bool // there is a resolv.conf
}

// A Bind is a path of the host that is shared.
type Bind struct {
	Path   string // in the container
	Source string
}

// An Owner is a user of the host.
type Owner struct{ UID, GID int }

// Command is what an image says is to be run, with the words of a user: they take the place
// of Cmd.
func Command(im container.ImageConfig, words []string) []string {
	if len(words) == 0 {
		words = im.Cmd
	}
	return slices.Concat(im.Entrypoint, words)
}

// Env is the environment of the container's command.
func (c *Container) Env() []string {
	env := slices.Clone(c.Image.Env)
	add := func(name, value string) {
		has := slices.ContainsFunc(env, func(v string) bool {
			return len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name
		})
		if !has && value != "" {
			env = append(env, name+"="+value)
		}
	}
	add("PATH", program.DefaultPath)
	add("HOME", c.User.Home)
	add("HOSTNAME", c.Name)
	if c.Terminal {
		add("TERM", c.Term)
		add("TERM", "xterm")
	}
	return env
}

// Dir is the working directory.
func (c *Container) Dir() string { return path.Join("/", c.Image.WorkingDir) }

// capabilities are Podman's: those of Docker without the ones to make devices, to
// write to the audit log, and to forge packets, which on the host's network would be the host's.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// masked and readonly are Docker's (moby, oci/defaults.go).
var (
	masked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// specVersion is the version that the runc and crun of 2021 know too.
const specVersion = "1.0.2"

func (c *Container) spec() *specs.Spec {
	s := &specs.Spec{
		Version:  specVersion,
		Hostname: c.Name,
		Root:     &specs.Root{Path: RootDir},
		Process: &specs.Process{
			Terminal: c.Terminal,
			User:     specs.User{UID: c.User.UID, GID: c.User.GID, AdditionalGids: c.User.Groups},
			Args:     c.Args,
			Env:      c.Env(),
			Cwd:      c.Dir(),
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
		},
		Mounts: c.mounts(),
		Linux: &specs.Linux{
			MaskedPaths:   masked,
			ReadonlyPaths: readonly,
		},
	}
	if c.Prepare != nil {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: c.Prepare[0], Args: c.Prepare[1:]}}}
	}
	if c.User.UID != 0 {
		// Who is not root has none to begin with.
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
	}
	kinds := []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace,
	}
	if c.Owner != nil {
		kinds = append(kinds, specs.UserNamespace)
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(c.Owner.UID), Size: 1}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(c.Owner.GID), Size: 1}}
	}
	for _, kind := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	if c.Devices {
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	}
	return s
}

// mounts are what a container has besides its root. The specification's
// config-linux.md lists those that there should be.
func (c *Container) mounts() []specs.Mount {
	mapped := !c.UserNamespace // all groups are, as far as one needs to know
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if mapped {
		pts = append(pts, "gid=5")
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if c.UserNamespace {
		// A sysfs of its own belongs to who has made the network's namespace.
		mounts = append(mounts, specs.Mount{
			Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"},
		})
	} else {
		mounts = append(
			mounts,
			specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		)
	}
	// Relative sources are meant from the bundle.
	files := []Bind{{"/etc/hosts", hostsFile}}
	if c.resolv {
		files = append(files, Bind{"/etc/resolv.conf", resolvFile})
	}
	for _, b := range append(files, c.Binds...) {
		mounts = append(mounts, specs.Mount{Destination: b.Path, Type: "bind", Source: b.Source, Options: []string{"rbind", "rprivate"}})
	}
	return mounts
}
