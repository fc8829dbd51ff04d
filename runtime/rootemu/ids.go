package rootemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// identities are the credentials that processes have given themselves. Which of them a process has
// is noted where children inherit it, execve(2) keeps it, and the kernel forgets it with the
// process: in the soft limit RLIMIT_RTTIME, of the time that a real-time process may run without
// a pause. It is without effect at such sizes, and nobody else's: what is not a limit of ours
// means that the process is what it really is.
//
// The threads of a process have one identity here. C libraries repeat such a call on all threads, which
// changes nothing the second time, but for a setuid back to a saved root.
type identities struct {
	mu    sync.Mutex
	list  []creds
	index map[creds]int
	stack unix.Rlimit // what processes have that are root
}

// firstNote is the limit that notes the first credentials, in microseconds: a hundred
// thousand years.
const (
	firstNote = 1 << 62
	lastNote  = firstNote + 1<<32
)

func newIdentities() *identities { return &identities{index: map[creds]int{}} }

// reset looks at the limits of this process, and takes away the note that it may have from
// an emulation around it.
func (t *identities) reset() error {
	var lim unix.Rlimit
	err := unix.Prlimit(0, unix.RLIMIT_RTTIME, nil, &lim)
	if err == nil && lim.Cur >= firstNote && lim.Cur < lastNote {
		lim.Cur = lim.Max
		err = unix.Prlimit(0, unix.RLIMIT_RTTIME, &lim, nil)
	}
	if err == nil {
		err = unix.Prlimit(0, unix.RLIMIT_STACK, nil, &t.stack)
	}
	if err != nil {
		return fmt.Errorf("look at limits: %w", err)
	}
	return nil
}

// of gives the credentials of a process; known tells whether it has given itself any.
func (t *identities) of(pid int) (c creds, known bool, err error) {
	var lim unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &lim); err != nil {
		return creds{}, false, err
	}
	if lim.Cur < firstNote || lim.Cur >= lastNote {
		return creds{}, false, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := int(lim.Cur - firstNote); n < len(t.list) {
		return t.list[n], true, nil
	}
	return creds{}, false, nil
}

// set notes the credentials of a process. Where the host has set a hard limit below what
// that takes, the process stays root to itself.
func (t *identities) set(pid int, c creds) error {
	var lim unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &lim); err != nil {
		return err
	}
	lim.Cur = lim.Max
	if c != (creds{}) {
		lim.Cur = firstNote + uint64(t.number(c))
	}
	if lim.Cur > lim.Max {
		return nil
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, &lim, nil); err != nil {
		return err
	}
	return t.spread(pid, c.user())
}

// spread makes the programs that a process will execute tell by the addresses of their shared
// libraries that it has become a user, as a filter sees nothing else of a process: where the stack
// may grow without limit, the kernel puts them far below it. Stopping the calls in question of all
// processes would cost too much. Where the hard limit of the stack forbids it, those
// programs see and make files as root.
func (t *identities) spread(pid int, user bool) error {
	lim := t.stack
	if user {
		lim.Cur = unix.RLIM_INFINITY
	}
	if lim.Cur > lim.Max {
		return nil
	}
	return unix.Prlimit(pid, unix.RLIMIT_STACK, &lim, nil)
}

func (t *identities) number(c creds) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.index[c]
	if !ok {
		n = len(t.list)
		t.list, t.index[c] = append(t.list, c), n
	}
	return n
}

// setrlimit and prlimit leave our note in place: pam_limits sets all limits of a process that is about
// to become a user (Debian's, to those of process 1).
func setrlimit(c *caller) answer {
	if _, known, err := c.ids.of(int(c.Pid)); err != nil || !known {
		return asItWere
	}
	return done
}

func prlimit(c *caller) answer {
	if c.num(0) != 0 && c.num(0) != int32(c.Pid) || c.addr(2) == 0 {
		return asItWere
	}
	if old := c.addr(3); old != 0 {
		var lim unix.Rlimit
		if err := unix.Prlimit(int(c.Pid), unix.RLIMIT_RTTIME, nil, &lim); err != nil {
			return fails(err)
		}
		b := binary.NativeEndian.AppendUint64(nil, lim.Cur)
		if err := c.write(old, binary.NativeEndian.AppendUint64(b, lim.Max)); err != nil {
			return fails(err)
		}
	}
	return setrlimit(c)
}

// change changes the caller's credentials.
func (c *caller) change(how func(*creds) error) answer {
	was, _, err := c.ids.of(int(c.Pid))
	if err != nil {
		return fails(err)
	}
	is := was
	if err := how(&is); err != nil || is == was {
		return fails(err)
	}
	if err := c.alive(); err != nil {
		return fails(err)
	}
	return fails(c.ids.set(int(c.Pid), is))
}

func setuid(c *caller) answer {
	return c.change(func(cr *creds) error { return cr.setAll(&cr.uid, c.ugid(0)) })
}

func setgid(c *caller) answer {
	return c.change(func(cr *creds) error { return cr.setAll(&cr.gid, c.ugid(0)) })
}

func setreuid(c *caller) answer {
	return c.change(func(cr *creds) error { return cr.setTwo(&cr.uid, c.ugid(0), c.ugid(1)) })
}

func setregid(c *caller) answer {
	return c.change(func(cr *creds) error { return cr.setTwo(&cr.gid, c.ugid(0), c.ugid(1)) })
}

func setresuid(c *caller) answer {
	want := [3]uint32{c.ugid(0), c.ugid(1), c.ugid(2)}
	return c.change(func(cr *creds) error { return cr.setThree(&cr.uid, want) })
}

func setresgid(c *caller) answer {
	want := [3]uint32{c.ugid(0), c.ugid(1), c.ugid(2)}
	return c.change(func(cr *creds) error { return cr.setThree(&cr.gid, want) })
}

func setfsuid(c *caller) answer {
	return c.changeFilesystem(func(cr *creds) uint32 { return cr.setFilesystem(&cr.uid, c.ugid(0)) })
}

func setfsgid(c *caller) answer {
	return c.changeFilesystem(func(cr *creds) uint32 { return cr.setFilesystem(&cr.gid, c.ugid(0)) })
}

// changeFilesystem is change for calls that cannot fail, and say what was.
func (c *caller) changeFilesystem(how func(*creds) uint32) answer {
	var was uint32
	a := c.change(func(cr *creds) error {
		was = how(cr)
		return nil
	})
	a.val = int64(c.shown(was))
	return a
}

func setgroups(c *caller) answer {
	const most = 65536 // NGROUPS_MAX
	n := uint32(c.Args[0])
	if n > most {
		return fails(unix.EINVAL)
	}
	list := make([]byte, int(n)*c.idSize())
	if err := c.readAll(c.addr(1), list); err != nil {
		return fails(err)
	}
	var groups []byte
	for _, g := range c.decode(list) {
		groups = binary.NativeEndian.AppendUint32(groups, g)
	}
	return c.change(func(cr *creds) error {
		if !cr.capable() {
			return unix.EPERM
		}
		cr.groups, cr.known = string(groups), true
		return nil
	})
}

// keepCaps is prctl(PR_SET_KEEPCAPS).
func keepCaps(c *caller) answer {
	a := c.change(func(cr *creds) error {
		cr.keepCaps = c.Args[1] == 1
		return nil
	})
	a.goOn = a.err == nil
	return a
}

func getuid(c *caller) answer  { return c.tell(func(cr *creds) uint32 { return cr.uid[real] }) }
func geteuid(c *caller) answer { return c.tell(func(cr *creds) uint32 { return cr.uid[effective] }) }
func getgid(c *caller) answer  { return c.tell(func(cr *creds) uint32 { return cr.gid[real] }) }
func getegid(c *caller) answer { return c.tell(func(cr *creds) uint32 { return cr.gid[effective] }) }

// shown is an id as the caller's machine returns it.
func (c *caller) shown(id uint32) uint32 {
	if c.narrow {
		return narrowID(id)
	}
	return id
}

func (c *caller) tell(id func(*creds) uint32) answer {
	cr, known, err := c.ids.of(int(c.Pid))
	if err != nil || !known {
		return asItWere
	}
	return answer{val: int64(c.shown(id(&cr)))}
}

func getresuid(c *caller) answer {
	return c.tellThree(func(cr *creds) [4]uint32 { return cr.uid })
}

func getresgid(c *caller) answer {
	return c.tellThree(func(cr *creds) [4]uint32 { return cr.gid })
}

func (c *caller) tellThree(ids func(*creds) [4]uint32) answer {
	cr, known, err := c.ids.of(int(c.Pid))
	if err != nil || !known {
		return asItWere
	}
	for kind, id := range ids(&cr) {
		if kind == filesystem {
			break
		}
		err = errors.Join(err, c.write(c.addr(kind), c.encode([]uint32{id})))
	}
	return fails(err)
}

func getgroups(c *caller) answer {
	cr, _, err := c.ids.of(int(c.Pid))
	if err != nil || !cr.known {
		return asItWere
	}
	var groups []uint32
	for b := []byte(cr.groups); len(b) > 0; b = b[4:] {
		groups = append(groups, binary.NativeEndian.Uint32(b))
	}
	size := int(c.num(0))
	switch {
	case size < 0 || size > 0 && size < len(groups):
		return fails(unix.EINVAL)
	case size > 0:
		err = c.write(c.addr(1), c.encode(groups))
	}
	return answer{val: int64(len(groups)), err: err}
}
