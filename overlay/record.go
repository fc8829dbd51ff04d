package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
)

// A recipe is what a mount was made of: indexes mounted from plain files, and an
// overlayfs on them.
type recipe struct {
	layers      [][]string // of each layer, top first, the index and its blobs
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
		if lw.files == nil {
			return nil
		}
		for _, f := range lw.files {
			if len(f) > maxString {
				return nil
			}
		}
		r.layers = append(r.layers, lw.files)
	}
	return r
}

// Recorded gives the files that the mount was made of and that Record names, nil
// if it cannot be recorded.
func (m *Mount) Recorded() []string {
	if m.recipe == nil {
		return nil
	}
	var all []string
	for _, files := range m.recipe.layers {
		all = append(all, files...)
	}
	return all
}

// Record adds the system calls to a plan that make a mount like this, and gives the
// slot of its descriptor. The mount must be one that has Recorded files; its upper
// and work directory are there when the calls are made.
func (m *Mount) Record(p *replay.Plan) replay.Slot {
	r := m.recipe
	var lower []replay.Slot
	for _, files := range r.layers {
		c := recordFS(p, "erofs")
		for i, f := range files {
			key := "device"
			if i == 0 {
				key = "source"
			}
			c.setString(key, f)
		}
		c.setFlag("ro")
		lower = append(lower, c.mount(unix.MOUNT_ATTR_RDONLY))
	}
	c := recordFS(p, "overlay")
	for _, l := range lower {
		c.setFD("lowerdir+", l)
	}
	for _, d := range [][2]string{{"upperdir", r.upper}, {"workdir", r.work}} {
		c.setFD(d[0], p.CallKeep(unix.SYS_OPENAT, replay.Number(unix.AT_FDCWD), replay.String(d[1]),
			replay.Number(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)))
	}
	for _, kv := range r.options {
		c.setString(kv[0], kv[1])
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
