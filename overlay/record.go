package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
)

// An origin is what a layer of an overlayfs was made of, where the same calls make it again.
type origin struct {
	files  func() []string // that it depends on; nil if it cannot be made again
	record func(*replay.Plan) replay.Slot
	ready  func(*replay.Plan, replay.Slot) // what is better done before overlayfs asks; or nil
}

// A Base is a tree that is mounted, detached, by another package: see [OpenOn].
type Base interface {
	// FD is a descriptor of the mount, which is the caller's to close.
	FD() int
	// Handles says that the tree cannot be asked for a file by a handle, though the kernel
	// thinks so.
	Handles() bool
	// Recorded is as that of [Mount].
	Recorded() []string
	// Record adds the system calls to a plan that make a mount like this, and gives the slot
	// of its descriptor. RecordReady adds what is better done before overlayfs asks it.
	Record(p *replay.Plan) replay.Slot
	RecordReady(p *replay.Plan, mount replay.Slot)
}

// A recipe is what a mount was made of: an overlayfs on layers that can be made again.
type recipe struct {
	layers      []origin // top first
	upper, work string
	volatile    bool
	options     [][2]string
}

// recipe is nil where the mount cannot be made again by the same calls.
func (l *lowers) recipe(o *Options, x xino) *recipe {
	if o.Upper == "" || len(o.Below) > 0 {
		return nil
	}
	r := &recipe{upper: o.Upper, work: o.Work, volatile: o.Volatile, options: overlayOptions(o, x)}
	for _, lw := range *l {
		if lw.origin == nil {
			return nil
		}
		r.layers = append(r.layers, *lw.origin)
	}
	return r
}

// erofsOrigin is the origin of an index, the first file, that was mounted with its blobs.
func erofsOrigin(files []string) *origin {
	for _, f := range files {
		if len(f) > maxString {
			return nil
		}
	}
	return &origin{files: func() []string { return files }, record: func(p *replay.Plan) replay.Slot {
		c := recordFS(p, "erofs")
		for i, f := range files {
			key := "device"
			if i == 0 {
				key = "source"
			}
			c.setString(key, f)
		}
		c.setFlag("ro")
		return c.mount(unix.MOUNT_ATTR_RDONLY)
	}}
}

// dirOrigin is the origin of a directory.
func dirOrigin(path string) *origin {
	return &origin{files: func() []string { return []string{path} }, record: func(p *replay.Plan) replay.Slot { return recordDir(p, path) }}
}

func recordDir(p *replay.Plan, path string) replay.Slot {
	return p.CallKeep(unix.SYS_OPENAT, replay.Number(unix.AT_FDCWD), replay.String(path),
		replay.Number(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
}

// Recorded gives the files that the mount was made of and that Record names, nil
// if it cannot be recorded.
func (m *Mount) Recorded() []string {
	if m.recipe == nil {
		return nil
	}
	var all []string
	for _, l := range m.recipe.layers {
		files := l.files()
		if files == nil {
			return nil
		}
		all = append(all, files...)
	}
	return all
}

// RecordLayers adds the system calls to a plan that make the layers of a mount like this,
// which must have Recorded files. What has a server of its own then starts it beside what
// comes next.
func (m *Mount) RecordLayers(p *replay.Plan) []replay.Slot {
	var layers []replay.Slot
	for _, l := range m.recipe.layers {
		layers = append(layers, l.record(p))
	}
	return layers
}

// Record adds the system calls that make a mount like this on its layers, and gives the
// slot of its descriptor. Its upper and work directory are there when the calls are made.
func (m *Mount) Record(p *replay.Plan, layers []replay.Slot) replay.Slot {
	r := m.recipe
	for i, l := range r.layers {
		if l.ready != nil {
			l.ready(p, layers[i])
		}
	}
	c := recordFS(p, "overlay")
	for _, l := range layers {
		c.setFD("lowerdir+", l)
	}
	c.setFD("upperdir", recordDir(p, r.upper))
	c.setFD("workdir", recordDir(p, r.work))
	for _, kv := range r.options {
		if kv[1] == "" {
			c.setFlag(kv[0])
		} else {
			c.setString(kv[0], kv[1])
		}
	}
	if r.volatile {
		c.setFlag("volatile")
	}
	return c.mount(0)
}

// A recordedFS is an fsContext of which the calls are recorded.
type recordedFS struct {
	plan *replay.Plan
	fd   replay.Slot
}

func recordFS(p *replay.Plan, fstype string) recordedFS {
	return recordedFS{p, p.CallKeep(unix.SYS_FSOPEN, replay.String(fstype), replay.Number(unix.FSOPEN_CLOEXEC))}
}

func (c recordedFS) setString(key, value string) {
	c.plan.Call(unix.SYS_FSCONFIG, c.fd.Arg(), replay.Number(unix.FSCONFIG_SET_STRING),
		replay.String(key), replay.String(value), replay.Number(0))
}

func (c recordedFS) setFlag(key string) {
	c.plan.Call(unix.SYS_FSCONFIG, c.fd.Arg(), replay.Number(unix.FSCONFIG_SET_FLAG),
		replay.String(key), replay.Number(0), replay.Number(0))
}

func (c recordedFS) setFD(key string, fd replay.Slot) {
	c.plan.Call(unix.SYS_FSCONFIG, c.fd.Arg(), replay.Number(unix.FSCONFIG_SET_FD),
		replay.String(key), replay.Number(0), fd.Arg())
}

func (c recordedFS) mount(attrs int) replay.Slot {
	c.plan.Call(unix.SYS_FSCONFIG, c.fd.Arg(), replay.Number(unix.FSCONFIG_CMD_CREATE),
		replay.Number(0), replay.Number(0), replay.Number(0))
	return c.plan.CallKeep(unix.SYS_FSMOUNT, c.fd.Arg(), replay.Number(unix.FSMOUNT_CLOEXEC), replay.Number(attrs))
}
