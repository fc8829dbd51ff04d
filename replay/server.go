package replay

// Detach is the name under which a program is started to go on as the server of that name
// and of these arguments, detached. OwnMounts is its last argument where it has a mount
// namespace of its own; else it becomes empty. The names have one length, as one is
// written over the other.
const (
	Detach    = "plash-fuse-detach"
	Serve     = "plash-fuse-server"
	OwnMounts = "own-mounts"
)

// FirstFD is the first descriptor that is not for a server: those from there on are closed.
const FirstFD = 5

// A Server is what a plan has started: it has the device, and nobody waits for what it has to
// tell.
type Server struct {
	Device    int
	Config    []byte // as [Plan.Serve] has got it
	OwnMounts bool   // it has a mount namespace of its own

	// Lock is to be closed when all that is served is open.
	Lock int
	// Answers is a file of [Answers], open for reading and writing, with the Key; or -1.
	Answers int
	Key     []byte
	// Init is the kernel's first request, if it has been answered, and InitReply the answer.
	Init, InitReply []byte
	// Request is the one that it sent last, if it has not been answered.
	Request []byte
}
