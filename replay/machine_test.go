//go:build amd64 || arm64

package replay

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
)

// kernel stands for the kernel: it writes down the calls it gets.
type kernel struct {
	calls  []string
	result func(number uintptr) int
	fill   string // what it puts into the buffer
}

func (k *kernel) do(number, a, b, c, d, e, f uintptr) uintptr {
	copy(buffer[:], k.fill)
	k.calls = append(k.calls, fmt.Sprint(number, a, b, c, d, e, f))
	return uintptr(k.result(number))
}

func succeed(uintptr) int { return 0 }

// ops is what a plan's file has behind its head, which is checked.
func ops(t testing.TB, p *Plan) []byte {
	t.Helper()
	b := p.Encode()
	if b == nil {
		t.Fatal("a plan that cannot be encoded")
	}
	h := fnv.New32a()
	h.Write(b[headerSize:])
	if string(b[:len(magic)]) != magic || int(binary.LittleEndian.Uint32(b[len(magic):])) != len(b) ||
		binary.LittleEndian.Uint32(b[len(magic)+4:]) != h.Sum32() {
		t.Fatalf("header of the plan: %x", b[:headerSize])
	}
	return b[headerSize:]
}

func replay(t testing.TB, p *Plan, k *kernel, env ...string) (m *machine, ok bool) {
	t.Helper()
	m = &machine{plan: ops(t, p), do: k.do}
	return m, m.run(environment(env))
}

func TestCalls(t *testing.T) {
	var p Plan
	fd := p.CallKeep(257, Number(-100), Number(3))
	p.Call(0, fd.Arg(), Number(1), Number(2), Number(3), Number(4), Number(5))
	p.Commit()
	p.CallExpect(-2, 4)
	k := &kernel{result: func(n uintptr) int { return map[uintptr]int{257: 77, 4: -2}[n] }}
	m, ok := replay(t, &p, k)
	want := []string{fmt.Sprint(257, ^uintptr(99), 3, 0, 0, 0, 0), "0 77 1 2 3 4 5", "4 0 0 0 0 0 0"}
	if !ok || !m.committed || !slices.Equal(k.calls, want) {
		t.Errorf("%v, committed %v, calls %q, want %q", ok, m.committed, k.calls, want)
	}
}

func TestStringArguments(t *testing.T) {
	var p Plan
	p.Call(1, String("/etc/motd"), Bytes([]byte{1, 0, 2}))
	var got []string
	m := &machine{plan: ops(t, &p), do: func(_, a, b, _, _, _, _ uintptr) uintptr {
		for _, at := range []uintptr{a, b} {
			// The addresses are the plan's.
			off := at - address(ops0)
			got = append(got, string(ops0[off:off+10]))
		}
		return 0
	}}
	ops0 = m.plan
	if !m.run(nil) || got[0] != "/etc/motd\x00" || !strings.HasPrefix(got[1], "\x01\x00\x02\x00") {
		t.Errorf("arguments %q", got)
	}
}

var ops0 []byte

func TestGuards(t *testing.T) {
	for name, c := range map[string]struct {
		plan func(*Plan)
		ok   bool
	}{
		"success":            {func(p *Plan) { p.Call(1) }, true},
		"failure":            {func(p *Plan) { p.Call(2) }, false},
		"kept failure":       {func(p *Plan) { p.CallKeep(2) }, false},
		"value":              {func(p *Plan) { p.CallExpect(7, 1) }, true},
		"other value":        {func(p *Plan) { p.CallExpect(8, 1) }, false},
		"errno":              {func(p *Plan) { p.CallExpect(-5, 2) }, true},
		"content":            {func(p *Plan) { p.Call(1); p.Compare(2, []byte("llo")) }, true},
		"other content":      {func(p *Plan) { p.Call(1); p.Compare(1, []byte("llo")) }, false},
		"variable":           {func(p *Plan) { p.Env("HOME", "/root", true) }, true},
		"other value of it":  {func(p *Plan) { p.Env("HOME", "/roo", true) }, false},
		"no value":           {func(p *Plan) { p.Env("EMPTY", "", true) }, true},
		"missing variable":   {func(p *Plan) { p.Env("HOM", "", false) }, true},
		"unexpected":         {func(p *Plan) { p.Env("EMPTY", "", false) }, false},
		"expected in vain":   {func(p *Plan) { p.Env("HOM", "", true) }, false},
		"the first of a few": {func(p *Plan) { p.Env("TWICE", "1", true) }, true},
	} {
		var p Plan
		c.plan(&p)
		k := &kernel{fill: "hello", result: func(n uintptr) int { return map[uintptr]int{1: 7, 2: -5}[n] }}
		if _, ok := replay(t, &p, k, "TWICE=1", "HOME=/root", "EMPTY=", "TWICE=2"); ok != c.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

func TestTooMuch(t *testing.T) {
	for name, fill := range map[string]func(*Plan){
		"size":    func(p *Plan) { p.Call(1, Bytes(make([]byte, 60<<10))); p.Call(1, Bytes(make([]byte, 60<<10))) },
		"string":  func(p *Plan) { p.Call(1, Bytes(make([]byte, 64<<10))) },
		"slots":   func(p *Plan) { eachSlot(p) },
		"compare": func(p *Plan) { p.Compare(BufSize, []byte("x")) },
	} {
		var p Plan
		if fill(&p); p.Encode() != nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func eachSlot(p *Plan) {
	for range Slots + 1 {
		p.CallKeep(1)
	}
}

// TestTorn: what is left of a plan that was cut off is not replayed to its end,
// and reads nothing behind it.
func TestTorn(t *testing.T) {
	var p Plan
	p.Env("HOME", "/root", true)
	p.CallKeep(1, String("abc"), Buffer(), Number(1))
	p.Compare(0, []byte("hello"))
	p.Commit()
	all := ops(t, &p)
	for n := range len(all) {
		k := &kernel{fill: "hello", result: succeed}
		m := &machine{plan: all[:n:n], do: k.do}
		if m.run(environment{"HOME=/root"}) && n > 0 && !endsOp(t, all, n) {
			t.Errorf("%d of %d bytes were replayed", n, len(all))
		}
	}
}

// endsOp tells whether a plan may end after n bytes.
func endsOp(t *testing.T, all []byte, n int) bool {
	m := &machine{plan: all, do: (&kernel{fill: "hello", result: succeed}).do}
	for len(all)-len(m.plan) < n {
		one := &machine{plan: m.plan, do: m.do}
		size := 1
		for ; size <= len(m.plan); size++ {
			one.plan, one.broken = m.plan[:size:size], false
			if one.run(environment{"HOME=/root"}) {
				break
			}
		}
		if size > len(m.plan) {
			t.Fatal("no operation to be found")
		}
		m.plan = m.plan[size:]
	}
	return len(all)-len(m.plan) == n
}

func FuzzMachine(f *testing.F) {
	var p Plan
	p.Env("HOME", "/root", true)
	p.CallKeep(1, String("abc"), Buffer(), Number(1))
	p.Compare(0, []byte("hello"))
	p.Commit()
	p.CallExpect(0, 2, Slot(0).Arg())
	f.Add(ops(f, &p))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &machine{plan: b, do: (&kernel{fill: "hello", result: succeed}).do}
		m.run(environment{"HOME=/root"})
	})
}

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"plash run 1 true":              "1 true",
		"/usr/bin/plash run 12 ls -l /": "12 ls -l /",
		"plash-run 7 -- ls --help":      "7 ls --help",
		"/x/plash-run 7 sh -c --":       "7 sh -c --",
		"plash run 1 -- -x":             "1 -x",

		"":                                 "",
		"plash":                            "",
		"plash run":                        "",
		"plash run 1":                      "",
		"plash run 1 --":                   "",
		"plash run 1 -- -- ls":             "",
		"plash run 1 -m /x ls":             "",
		"plash run -m /x 1 ls":             "",
		"plash run 0 ls":                   "",
		"plash run 01 ls":                  "",
		"plash run 1x ls":                  "",
		"plash run @name ls":               "",
		"plash run -- 1 ls":                "",
		"plash create 1 ls":                "",
		"plash-create 1 ls":                "",
		"plash-runc 1 ls":                  "",
		"plash-run-1 1 ls":                 "",
		"plash-run run 1 ls":               "",
		"plash runrun 1 ls":                "",
		"plash run 1234567890123456789 ls": "",
	} {
		c, ok := parse(strings.Fields(line))
		got := ""
		if ok {
			got = c.id + " " + strings.Join(c.argv, " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// TestList: the strings of a process need not have a zero behind them.
func TestList(t *testing.T) {
	env := environment(strings.Split("A=1|PWD=/x|PWDX=2|PWD=/y", "|"))
	if !fit(nil, env) {
		t.Fatal("does not fit")
	}
	defer func() { listBytes, listCount = 0, 0 }()
	list([]string{"ls", ""}, "", "")
	list(env, "PWD", "PWD=/")
	if got := string(listText[:listBytes]); got != "ls\x00\x00A=1\x00PWDX=2\x00PWD=/\x00" {
		t.Errorf("strings %q", got)
	}
	var lens []int
	for _, at := range listPlace[:listCount] {
		n := -1
		if at != 0 {
			n = int(at - address(listText[:]))
		}
		lens = append(lens, n)
	}
	if !slices.Equal(lens, []int{0, 3, -1, 4, 8, 15, -1}) {
		t.Errorf("places %v", lens)
	}
	if fit(make([]string, len(listPlace)), nil) || fit([]string{strings.Repeat("x", len(listText))}, nil) {
		t.Error("too much is said to fit")
	}
}

// TestServe: who replays the plan goes on without the device, and its grandchild is the
// server.
func TestServe(t *testing.T) {
	var p Plan
	device := p.CallKeep(257)
	p.Call(7, device.Decimal())
	p.Serve(device, Serve+" x", []byte(`{"a":1}`))
	p.Call(8)
	for _, c := range []struct {
		name    string
		forks   []int
		want    []uintptr // system calls
		ok      bool
		serving bool
	}{
		{"parent", []int{50}, []uintptr{257, 7, sysClone, sysClose, 8, sysWait4}, true, false},
		{"no child", []int{-11}, []uintptr{257, 7, sysClone}, false, false},
		{"server", []int{0, 0}, []uintptr{
			257, 7, sysClone, sysClone, sysRtSigaction, sysRtSigaction, sysRtSigaction, sysRtSigaction,
			sysRtSigaction, sysRtSigaction, sysRtSigaction, sysRtSigaction, sysSetsid, sysUnshare, sysOpenat, sysDup3, sysDup3, sysStatx,
			sysFcntl, sysDup3, sysCloseRange, sysChdir, sysPrctl,
		}, false, true},
	} {
		forks := c.forks
		var got []uintptr
		var texts []string
		m := &machine{plan: ops(t, &p)}
		m.do = func(number, a, _, _, _, _, _ uintptr) uintptr {
			got = append(got, number)
			switch number {
			case 257:
				return 19
			case 7:
				texts = append(texts, string(digits[a-address(digits[:]):]))
			case sysClone:
				r := forks[0]
				forks = forks[1:]
				return uintptr(r)
			case sysStatx:
				buffer[28], buffer[29] = 0, 0o100000>>8
			}
			return 0
		}
		ok := m.run(nil)
		if m.wait(); ok != c.ok || m.serving != c.serving || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, serving %v, calls %d, want %d", c.name, ok, m.serving, got, c.want)
		}
		if len(texts) != 1 || texts[0] != "19\x00" {
			t.Errorf("%s: the device is %q", c.name, texts)
		}
		if m.serving {
			s, ok := Started()
			if !ok || string(s.Config) != `{"a":1}` || s.Device != deviceFD || !s.OwnMounts || string(title) != Serve+" x" {
				t.Errorf("%s: %+v, called %q", c.name, s, title)
			}
		} else if m.slots[device] != none && ok {
			t.Errorf("%s: the device is open", c.name)
		}
	}
	served, title, detached = Server{}, nil, false
}

func TestDecimal(t *testing.T) {
	for n, want := range map[uintptr]string{0: "0\x00", 9: "9\x00", 10: "10\x00", 1048575: "1048575\x00", ^uintptr(0): "18446744073709551615\x00"} {
		if got := string(digits[decimal(n)-address(digits[:]):]); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
