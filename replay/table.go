package replay

// maxErrno is the largest error that the kernel takes (fuse_dev_do_write of fs/fuse/dev.c).
const maxErrno = 511

// An answerTable finds answers in the content of a file.
type answerTable struct {
	content []byte
	at      [MaxAnswers + 1]uint32 // where answers begin, and the end
	count   int
	next    int // the answer behind the last one that was found
	paths   [MaxAnswerFiles][]byte
	files   int
}

// load looks at all of a file, and tells whether it holds answers for the plan of a key.
func (t *answerTable) load(b, key []byte) bool {
	const fixed = answersHeader + KeySize + 8
	if len(b) < fixed || len(b) > MaxAnswersSize || len(b)%8 != 0 || view(b[:len(answersMagic)]) != answersMagic {
		return false
	}
	head := b[len(answersMagic):]
	size, count := get32(head), get32(head[4:])
	if int(size) != len(b) || count > MaxAnswers || get64(head[8:]) != sum64(b[answersHeader:]) {
		return false
	}
	files := get64(b[answersHeader+KeySize:])
	if view(b[answersHeader:answersHeader+KeySize]) != view(key) || files > MaxAnswerFiles {
		return false
	}
	t.content, t.count, t.files, t.next = b, int(count), int(files), 0
	at := fixed
	for i := range t.files {
		if len(b)-at < 2 {
			return false
		}
		n := get16(b[at:])
		if at += 2; len(b)-at < n+1 || n == 0 || b[at] != '/' || b[at+n] != 0 {
			return false
		}
		t.paths[i] = b[at : at+n]
		at += n + 1
	}
	return t.walk((at + 7) &^ 7)
}

// walk notes where the answers are.
func (t *answerTable) walk(at int) bool {
	for i := range t.count {
		if at > len(t.content) || len(t.content)-at < answerHeader {
			return false
		}
		t.at[i] = uint32(at)
		e := answer(t.content[at:])
		n := answerHeader + e.bodySize()
		if errno := -int32(get32(e[4:])); errno < 0 || errno > maxErrno {
			return false
		}
		if e.file() == noFile {
			if e.size() > MaxAnswersSize {
				return false
			}
			n += e.size()
		} else if e.file() >= t.files || e.size() > maxReply {
			return false
		}
		if n = (n + 7) &^ 7; n > len(t.content)-at {
			return false
		}
		at += n
	}
	t.at[t.count] = uint32(at)
	return at == len(t.content)
}

// find gives the answer to a request, nil if there is none. A run mostly asks what the one
// before has asked, in the same order.
func (t *answerTable) find(request []byte) answer {
	if len(request) < requestHeader || get16(request[36:]) != 0 {
		return nil
	}
	head, node, body := view(request[4:8]), view(request[16:24]), view(bodyOf(request))
	for range t.count {
		if t.next >= t.count {
			t.next = 0
		}
		e := answer(t.content[t.at[t.next]:t.at[t.next+1]])
		t.next++
		if view(e[8:16]) == node && view(e[:4]) == head && view(e[answerHeader:answerHeader+e.bodySize()]) == body {
			return e
		}
	}
	return nil
}

// bodyOf is what the answer to a request depends on, besides opcode and node. FLUSH says who closes
// a file, which is another one each time.
func bodyOf(request []byte) []byte {
	if get32(request[4:]) == opcodeFlush {
		return nil
	}
	return request[requestHeader:]
}

// An answer is one of a table, from its beginning.
type answer []byte

func (e answer) bodySize() int  { return get16(e[16:]) }
func (e answer) file() int      { return get16(e[18:]) }
func (e answer) size() int      { return int(get32(e[20:])) } // of the reply
func (e answer) offset() uint64 { return get64(e[24:]) }

// data is the reply if it is in no file.
func (e answer) data() []byte {
	at := answerHeader + e.bodySize()
	return e[at : at+e.size()]
}

// sum64 is a checksum as sum, of 8 bytes at once.
func sum64(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for len(b) >= 8 {
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56 // one load
		h = (h ^ w) * 1099511628211
		h ^= h >> 32
		b = b[8:]
	}
	return h
}
