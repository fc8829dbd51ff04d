package fusefs

import (
	"context"
	"encoding/json"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/replay"
)

// A recipe is what a mount was made of: by [mountDetached], with a server of its own.
type recipe struct {
	store   *cas.Store
	config  serverConfig
	options [][2]string // but the device
	attrs   int
}

// Recorded gives the files that the mount was made of, nil if it cannot be recorded: only
// before Go starts, a process can make a server of its child.
func (m *Mount) Recorded() []string {
	if m.recipe == nil || !replay.Early() {
		return nil
	}
	files, err := m.recipe.files()
	if err != nil {
		return nil
	}
	return files
}

// Record adds the system calls to a plan that make a mount like this and start its server,
// and gives the slot of its descriptor. The mount must be one that has Recorded files.
func (m *Mount) Record(p *replay.Plan) replay.Slot {
	served := m.recipe.config
	served.Awaited = true
	config, err := json.Marshal(&served)
	if err != nil {
		config = nil // a server does not start with that
	}
	device := p.CallKeep(unix.SYS_OPENAT, replay.Number(unix.AT_FDCWD), replay.String(devicePath), replay.Number(unix.O_RDWR|unix.O_CLOEXEC))
	c := p.CallKeep(unix.SYS_FSOPEN, replay.String(fsType), replay.Number(unix.FSOPEN_CLOEXEC))
	p.Call(unix.SYS_FSCONFIG, c.Arg(), replay.Number(unix.FSCONFIG_SET_STRING), replay.String("fd"), device.Decimal(), replay.Number(0))
	for _, kv := range m.recipe.options {
		if kv[1] == "" {
			p.Call(unix.SYS_FSCONFIG, c.Arg(), replay.Number(unix.FSCONFIG_SET_FLAG), replay.String(kv[0]), replay.Number(0), replay.Number(0))
		} else {
			p.Call(unix.SYS_FSCONFIG, c.Arg(), replay.Number(unix.FSCONFIG_SET_STRING), replay.String(kv[0]), replay.String(kv[1]), replay.Number(0))
		}
	}
	p.Call(unix.SYS_FSCONFIG, c.Arg(), replay.Number(unix.FSCONFIG_CMD_CREATE), replay.Number(0), replay.Number(0), replay.Number(0))
	mount := p.CallKeep(unix.SYS_FSMOUNT, c.Arg(), replay.Number(unix.FSMOUNT_CLOEXEC), replay.Number(m.recipe.attrs))
	// Now that the device is mounted, it can be read. What comes next in the plan goes on
	// beside the server's start.
	p.Serve(device, serverName+" "+m.recipe.config.Source, config)
	return mount
}

// RecordReady has the kernel list the root directory, which brings what it has to know of all
// entries by one request: a run looks up most of them, one by one.
func (m *Mount) RecordReady(p *replay.Plan, mount replay.Slot) {
	dir := p.CallKeep(unix.SYS_OPENAT, mount.Arg(), replay.String("."), replay.Number(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC))
	p.Call(unix.SYS_GETDENTS64, dir.Arg(), replay.Buffer(), replay.Number(replay.BufSize))
}

// files are the index and the blobs that the server opens.
func (r *recipe) files() ([]string, error) {
	ix, err := r.store.Merged(context.Background(), r.config.Layers)
	if err != nil {
		return nil, err
	}
	files := []string{ix.Path()}
	for _, b := range ix.Blobs() {
		files = append(files, r.store.BlobPath(b))
	}
	return files, ix.Close()
}
