// Package replay starts a command in a container without starting plash first.
//
// Most of what a run costs is not mounting: it is the initialisation of some 200
// packages, of which a run needs few, and working out again what was worked out the
// last time. So the first run of a container leaves a plan beside its record, the
// list of system calls that made its root, and later runs replay it. Where the linker was told
// so (-E plash_entry), that is before Go's runtime starts, which costs a third of a
// run. Else it is the first thing after: this package imports nothing but unsafe, so
// Go initialises it before all others ("Program initialization" in the language's
// specification, in the order of import paths since Go 1.21). Either way it does not
// return where there is a plan that fits. ARCHITECTURE.md has the figures.
//
// Invariants:
//   - What to do is decided in one place, package runtime, which records what it
//     has done. This package knows nothing of layers, mounts and options.
//   - A plan begins with what must still be so (the boot, the index files, the
//     environment, an empty scratch directory, the locks of the store). If
//     anything is not, nothing has happened and the program goes on as ever.
//   - If a call fails later, the program is started again in the namespace and directory
//     that it was called in, and is told to do without a plan; if the command cannot be
//     executed, in the container, as [Inside]. So all messages come from the usual place.
//   - What is handed to the kernel lies in static buffers, or is a constant or a
//     string of the process itself, so that its address stays what it is.
//   - The server of a mount that a plan makes is forked off in its middle and goes on into Go
//     as what [Started] gives; nothing else comes back from a plan. It begins with the answers that
//     earlier runs have left ([Answers]), and most runs end before it needs Go. They are for one plan, by its
//     key, and say nothing that package fusefs would not say again.
//
// It does only what plash-run NUMBER [--] CMD… does, and what the init of a build's step does, with a plan
// that is made for this one step; every other command line is left alone.
// The plans of plain users begin with a user namespace, which a process with threads cannot
// enter: they are followed only before Go starts. From that namespace there is no way back,
// so if a call fails in there, the program is started again where it is.
package replay

import "unsafe"

// Var is the environment variable that tells the program to do without plans: "off"
// by the user, or "stale" by this package, which [Exec] of package
// runtime takes out of the command's environment.
const Var = "PLASH_REPLAY"

const (
	Off   = "off"
	Stale = "stale" // a call of the plan failed: a new plan is wanted
)

// Inside is the name under which the program is started, in the container's root, where a
// command could not be executed: its arguments are the PATH of the image, and the command line.
const Inside = "plash-inside"

// StepInit is the name under which a program is started to be the init of a build's step: with the
// descriptors StepStatusFD, for what is told of the command's end, and StepPlanFD, for a
// plan, see [Plan.Spawn]. Without a plan it goes on into Go.
const (
	StepInit     = "plash-step-init"
	StepStatusFD = 4
	StepPlanFD   = 7
)

// StepAgain is what the init tells, as JSON, if something in the plan did not work.
const StepAgain = `{"Again":true}`

// FileName is the name of a plan, in the directory that records the container.
const FileName = "replay"

// magic begins a plan and tells the version of the format, and whose system calls
// these are. It is followed by the length of the whole and a checksum of what comes behind that, 4 bytes each.
const (
	magic      = "plash-replay 4 " + arch + "\n"
	headerSize = len(magic) + 8
	// MaxSize is the size of the largest plan that is replayed, in bytes.
	MaxSize = 64 << 10
	// Slots is how many results of calls a plan can keep.
	Slots = 64
	// MaxDefaults is how many variables a plan can give.
	MaxDefaults = 128
	// BufSize is the size of the buffer that a plan's calls may fill, in bytes.
	BufSize = 4096
)

// What a plan is made of. Numbers are little endian.
const (
	// opCall: number (2 bytes), count of arguments (1), the arguments, what is
	// expected (1, and 8 bytes of value), slot for the result (1).
	opCall = 1 + iota
	// opCompare: offset in the buffer (2), length (2), the bytes to be there.
	opCompare
	// opEnv: whether the variable is set (1), its name, its value (as argString).
	opEnv
	// opCommit: nothing can be undone from here on.
	opCommit
	// opEnter: the root is the container's from here on.
	opEnter
	// opUndo: a directory (as argBytes) from which all mounts are taken if the plan fails.
	opUndo
	// opServe: slot of the FUSE device (1), slot of the lock that its server gives back when it
	// has opened what it serves (1), its title, its configuration, the path of its file of
	// answers (as argBytes), their key ([KeySize]).
	opServe
	// opSpawn: where to look for the command (as argBytes), the numbers of its arguments (1)
	// and variables (2), all of them (as argBytes).
	opSpawn
	// opDefault: a variable, NAME=VALUE (as argBytes), for a caller who has none of that name.
	opDefault
)

// Kinds of arguments.
const (
	argNumber  = 1 + iota // 8 bytes
	argBytes              // length (2), the bytes, a zero; its address is the argument
	argSlot               // 1 byte
	argBuffer             // the buffer's address
	argDecimal            // 1 byte: the slot as text; of one call, one argument at most
)

// What a call is expected to return.
const (
	expectSuccess = 1 + iota // anything but an error
	expectValue              // this very value; an error is negative
	expectNothing            // whatever it is
)

// noSlot says that a result is not kept.
const noSlot = 0xff

// sum is the FNV-1a hash of b: enough to tell a torn file.
func sum(b []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// view is bytes as a string, which is not a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func put32(b []byte, n uint32) {
	b[0], b[1], b[2], b[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
}

func get16(b []byte) int    { return int(b[0]) | int(b[1])<<8 }
func get32(b []byte) uint32 { return uint32(get16(b)) | uint32(get16(b[2:]))<<16 }
func get64(b []byte) uint64 { return uint64(get32(b)) | uint64(get32(b[4:]))<<32 }
