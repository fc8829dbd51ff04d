package runtime

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// takeReplayVar takes what package replay says of itself out of the environment,
// and tells whether a plan for the next run is wanted.
func (r *run) takeReplayVar() bool {
	switch value, set := program.LookupEnv(r.env, replay.Var); {
	case !set:
		return replay.Supported
	case value == replay.Stale:
		r.env = program.UnsetEnv(r.env, replay.Var)
		return true
	}
	return false
}

// dropStalePlan is for a user whose plan failed. He is in a namespace that he does not get out
// of: if there can be no stage in it, the next run is to do without the plan.
func dropStalePlan(st *container.Store, id container.ID) {
	if os.Getenv(replay.Var) == replay.Stale {
		_ = st.WriteBeside(id, replay.FileName, nil)
	}
}

// record leaves a plan that package replay follows at the next run of the container.
// It is called between the last mount and entering the root, with the layers of a
// plain run. A plan only saves time: where it cannot be made or kept, all goes on.
func (r *run) record(st *container.Store, id container.ID) {
	root, ok := r.root.(*overlay.Mount)
	if !ok || r.plan == nil || !plannable() || root.Recorded() == nil {
		return
	}
	for _, s := range r.sources {
		if !s.Repeatable() {
			return // a place is to be made, or a warning given, at every run
		}
	}
	p := &recorder{dir: st.CAS().Dir()}
	for _, v := range r.vars {
		p.Default(v)
	}
	p.guard(r, root)
	record, err := st.PathBeside(id, container.RecordFile)
	if err != nil {
		return
	}
	// As [container.Store.Touch] does, but every time.
	p.Try(unix.SYS_UTIMENSAT, cwd(), replay.String(record), replay.Number(0), replay.Number(0))
	if staged != nil {
		p.userNamespace()
	} else {
		p.Commit()
		p.mountNamespace()
	}
	answers, err := st.PathBeside(id, replay.AnswersName)
	if err != nil {
		return
	}
	p.Answers(answers, p.lock)
	p.mount(r, root)
	plan := p.Encode()
	if p.Serves() && plan != nil {
		key := sha256.Sum256(plan)
		p.SetKey([replay.KeySize]byte(key[:]))
		plan = p.Encode()
	}
	if plan == nil || p.err != nil {
		return
	}
	if old, err := st.ReadBeside(id, replay.FileName); err == nil && bytes.Equal(old, plan) {
		return // it fits again: something was only in its way
	}
	if p.Serves() && st.WriteBeside(id, replay.AnswersName, nil) != nil {
		return
	}
	_ = st.WriteBeside(id, replay.FileName, plan)
}

// plannable tells whether this process is one that plans are made for: root, or a user who
// has no rights but in the namespace of his stage, where he is the only user.
func plannable() bool {
	uid := unix.Getuid()
	if uid != unix.Geteuid() || unix.Getgid() != unix.Getegid() {
		return false
	}
	if staged == nil {
		return uid == 0
	}
	return uid != 0 && staged.Flat && replay.Early()
}

// A recorder is a plan with the calls that are often made.
type recorder struct {
	replay.Plan
	dir  string      // the store's
	lock replay.Slot // that the store was locked with
	err  error
}

// cwd stands for the working directory in *at calls.
func cwd() replay.Arg { return replay.Number(unix.AT_FDCWD) }

func (p *recorder) open(path string, flags int) replay.Slot {
	return p.CallKeep(unix.SYS_OPENAT, cwd(), replay.String(path), replay.Number(flags|unix.O_CLOEXEC))
}

// guard demands what the plan relies on, and takes the store's lock as
// [cas.Store.LockShared] does, but without waiting.
func (p *recorder) guard(r *run, root *overlay.Mount) {
	if staged != nil {
		p.sameUser()
	}
	for _, name := range []string{BackendVar, "HOME"} {
		value, set := program.LookupEnv(r.env, name)
		p.Env(name, value, set)
	}
	// Another version may do something else.
	p.unchanged("/proc/self/exe")
	// Indexes were verified for this boot.
	p.content("/proc/sys/kernel/random/boot_id")
	p.content(p.dir + "/version")
	for _, f := range root.Recorded() {
		p.unchanged(f)
	}
	p.empty(p.dir + "/scratch") // or it has to be looked at who is alive
	for _, b := range r.binds {
		p.absent(b, r.sources)
	}
	gate := p.open(p.dir+"/lock.gate", unix.O_RDONLY)
	p.Call(unix.SYS_FLOCK, gate.Arg(), replay.Number(unix.LOCK_SH|unix.LOCK_NB))
	lock := p.open(p.dir+"/lock", unix.O_RDONLY)
	p.lock = lock
	p.Call(unix.SYS_FLOCK, lock.Arg(), replay.Number(unix.LOCK_SH|unix.LOCK_NB))
	p.Call(unix.SYS_FLOCK, gate.Arg(), replay.Number(unix.LOCK_UN))
}

// content demands that a short file says what it says now.
func (p *recorder) content(path string) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) >= replay.BufSize {
		p.err = errors.Join(p.err, err, unix.EFBIG)
		return
	}
	p.CallExpect(len(b), unix.SYS_READ, p.open(path, unix.O_RDONLY).Arg(), replay.Buffer(), replay.Number(replay.BufSize))
	p.Compare(0, b)
}

// unchanged demands that a file is the one that it is now.
func (p *recorder) unchanged(path string) {
	const mask = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_MTIME | unix.STATX_CTIME
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, mask, &st); err != nil {
		p.err = errors.Join(p.err, err)
		return
	}
	b := (*[unsafe.Sizeof(st)]byte)(unsafe.Pointer(&st))
	p.Call(unix.SYS_STATX, cwd(), replay.String(path), replay.Number(0), replay.Number(mask), replay.Buffer())
	for _, f := range [][2]uintptr{
		{unsafe.Offsetof(st.Ino), unsafe.Sizeof(st.Ino)},
		{unsafe.Offsetof(st.Size), unsafe.Sizeof(st.Size)},
		{unsafe.Offsetof(st.Ctime), unsafe.Sizeof(st.Ctime)},
		{unsafe.Offsetof(st.Mtime), unsafe.Sizeof(st.Mtime)},
	} {
		p.Compare(int(f[0]), b[f[0]:f[0]+f[1]])
	}
}

// emptyDir is what getdents64(2) returns for a directory with nothing in it: entries
// of 24 bytes for "." and "..".
const emptyDir = 48

func (p *recorder) empty(dir string) {
	fd := p.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	p.CallExpect(emptyDir, unix.SYS_GETDENTS64, fd.Arg(), replay.Buffer(), replay.Number(replay.BufSize))
}

// absent demands that what the host did not have to share is still not there.
func (p *recorder) absent(b share.Bind, found []share.Source) {
	for _, s := range found {
		if s.Path == b.Path {
			return
		}
	}
	var st unix.Stat_t
	var errno unix.Errno
	if err := unix.Stat(b.Path, &st); !errors.As(err, &errno) {
		p.err = errors.Join(p.err, unix.EEXIST, err)
		return
	}
	p.CallExpect(-int(errno), unix.SYS_STATX, cwd(), replay.String(b.Path), replay.Number(0), replay.Number(unix.STATX_TYPE), replay.Buffer())
}

// mountNamespace is what [enterNamespace] does.
func (p *recorder) mountNamespace() {
	p.Call(unix.SYS_UNSHARE, replay.Number(unix.CLONE_NEWNS))
	p.slave()
}

// mount makes the root as [run.prepare] has made it, and enters it as enterRoot
// does.
func (p *recorder) mount(r *run, m *overlay.Mount) {
	layers := m.RecordLayers(&p.Plan)
	shared := make([]sharedPlace, len(r.sources))
	for i, s := range r.sources {
		shared[i] = sharedPlace{s.Path, p.cloneTree(s.Path)}
	}
	p.Call(unix.SYS_MOUNT, replay.String("plash"), replay.String(r.at), replay.String("tmpfs"), replay.Number(0), replay.String("mode=0700"))
	p.Undo(r.at)
	p.upper(r.upper, *r.plan)
	p.mkdir(r.work)
	root := m.Record(&p.Plan, layers)
	p.Call(unix.SYS_MOVE_MOUNT, root.Arg(), replay.String(""), cwd(), replay.String(r.at), replay.Number(unix.MOVE_MOUNT_F_EMPTY_PATH))
	for _, s := range shared {
		p.share(root, s)
	}
	p.enter(root)
}

func (p *recorder) mkdir(dir string) {
	p.Call(unix.SYS_MKDIRAT, cwd(), replay.String(dir), replay.Number(0o755))
}
