package replay

// AnswersName is the name of the file of answers that belongs to a plan, beside it.
const AnswersName = "answers"

// answersMagic begins such a file, and tells the version of the format. It is followed by the
// size of the whole (4 bytes), the number of answers (4), a checksum of what comes behind that
// (8), the key of the plan, the number of files (8), their paths (2 bytes of length, the
// path, a zero), zeros up to a multiple of 8, and the answers.
const (
	answersMagic  = "plash-answers 1\n"
	answersHeader = len(answersMagic) + 16
	// KeySize is the size of what tells one plan from another, in bytes.
	KeySize = 16
	// MaxAnswersSize is the size of the largest such file, in bytes.
	MaxAnswersSize = 128 << 10
	// MaxAnswers is how many answers are kept.
	MaxAnswers = 512
	// MaxAnswerFiles is how many files they can point into.
	MaxAnswerFiles = 64
	// maxReply is how large the data of an answer can be, in bytes, as for all that package fusefs
	// serves.
	maxReply = 256 << 10
)

// What an answer is made of: opcode (4 bytes), error (4), node (8), size of the request's body
// (2), file (2), size of the reply (4), offset in the file (8), the request's body, the
// reply if it is in no file, zeros up to a multiple of 8.
const (
	answerHeader = 32
	noFile       = 0xffff
)

// A request begins with its size (4 bytes), opcode (4), number (8), node (8), who asks (12), the
// size of what follows its body (2), 2 unused: struct fuse_in_header in
// include/uapi/linux/fuse.h. A reply begins with its size (4), error (4), the number (8).
const (
	requestHeader = 40
	replyHeader   = 16
)

// Requests that need something of their own: enum fuse_opcode.
const (
	opcodeForget      = 2
	opcodeFlush       = 25
	opcodeInit        = 26
	opcodeInterrupt   = 36
	opcodeBatchForget = 42
)

// Answers are what a FUSE server has answered to the first requests of a run, for the next
// one.
type Answers struct {
	head  []byte      // what is before the answers and has a checksum
	table answerTable // of the answers alone
}

// NewAnswers makes an empty list for the plan of that key, whose answers may point into some files.
func NewAnswers(key []byte, files []string) *Answers {
	head := append64(append([]byte(nil), key...), uint64(len(files)))
	for _, f := range files {
		head = append(append(head, byte(len(f)), byte(len(f)>>8)), f...)
		head = append(head, 0)
	}
	return &Answers{head: pad(head)}
}

func pad(b []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// Add adds the answer to a request, if there was none. It returns false where there is no room. Request and reply are as
// they go through the device.
func (a *Answers) Add(request, reply []byte) bool {
	return a.add(request, reply, noFile, 0, reply[replyHeader:])
}

// AddFile adds an answer of size bytes that lie in a file of the list.
func (a *Answers) AddFile(request []byte, file int, offset int64, size int) bool {
	reply := append32(nil, uint32(replyHeader+size))
	return a.add(request, append64(reply, 0), file, offset, nil)
}

func (a *Answers) add(request, reply []byte, file int, offset int64, data []byte) bool {
	body := bodyOf(request)
	if a.table.find(request) != nil {
		return true
	}
	size := a.Size() + answerHeader + len(body) + len(data) + 7
	if a.Len() == MaxAnswers || size > MaxAnswersSize || len(body) > 0xffff {
		return false
	}
	t := &a.table
	b := append(t.content, request[4:8]...)
	b = append(b, reply[4:8]...)
	b = append(b, request[16:24]...)
	b = append(b, byte(len(body)), byte(len(body)>>8), byte(file), byte(file>>8))
	b = append32(b, get32(reply)-replyHeader)
	b = append64(b, uint64(offset))
	t.content = pad(append(append(b, body...), data...))
	t.count++
	t.at[t.count] = uint32(len(t.content))
	return true
}

// Encode gives the file's content.
func (a *Answers) Encode() []byte {
	b := append32([]byte(answersMagic), uint32(a.Size()))
	b = append32(b, uint32(a.Len()))
	all := append(append([]byte(nil), a.head...), a.table.content...)
	return append(append64(b, sum64(all)), all...)
}

// Extend continues a list of the same plan and files. It returns false, and nothing has
// changed, if the file's content is none.
func (a *Answers) Extend(content []byte) bool {
	var t answerTable
	if !t.load(content, a.head[:KeySize]) {
		return false
	}
	if view(content[answersHeader:t.at[0]]) != view(a.head) {
		return false
	}
	a.table = answerTable{content: append([]byte(nil), content[t.at[0]:]...), count: t.count}
	for i := range t.count {
		a.table.at[i+1] = t.at[i+1] - t.at[0]
	}
	return true
}

// Len is the number of answers.
func (a *Answers) Len() int { return a.table.count }

// Size is that of the file, in bytes.
func (a *Answers) Size() int { return answersHeader + len(a.head) + len(a.table.content) }
