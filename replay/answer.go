//go:build amd64 || arm64

package replay

import "unsafe"

// A server that has answers begins without Go: most runs are over before Go would have
// started. It goes on into Go at the first request that it has no answer to, and soon in any
// case, as it keeps the store's lock until Go's server has opened what it serves.
const (
	// patience is how long it waits for requests altogether, in nanoseconds.
	patience = 100e6
	// maxAnswered is how many requests it answers, which may be the same over and over.
	maxAnswered = 8 * MaxAnswers
)

const (
	fSetFL    = 4 // F_SETFL
	pollIn    = 1 // POLLIN
	oNonblock = 0x800

	enoent = ^uintptr(1)  // -ENOENT: the request was taken back
	eintr  = ^uintptr(3)  // -EINTR
	eagain = ^uintptr(10) // -EAGAIN
	enodev = ^uintptr(18) // -ENODEV: there is no mount any more
)

var (
	answersBuf [MaxAnswersSize + 1]byte
	// The kernel wants room for what it might send at most (fuse_dev_do_read of fs/fuse/dev.c).
	requestBuf [maxReply + 4096]byte
	replyBuf   [replyHeader + maxReply]byte
	// Both are 80 bytes at most (struct fuse_init_in, fuse_init_out), with their headers.
	initBuf, initReplyBuf [256]byte
	table                 answerTable
	// fileFDs are the descriptors of a table's files, or none.
	fileFDs [MaxAnswerFiles]uintptr
	pollFD  [8]byte
	left    [2]int64 // of patience, as a struct timespec, which ppoll(2) keeps
)

// answerFirst answers requests by the answers of earlier runs, as long as it can. What comes
// after that is left to Go, which is told the kernel's first request, and the last one if it
// is not answered. It does not come back if the mount has ended.
func (m *machine) answerFirst() {
	n, ok := readAll(uintptr(served.Answers), answersBuf[:])
	if !ok || !table.load(answersBuf[:n], served.Key) {
		return
	}
	for i := range fileFDs {
		fileFDs[i] = none
	}
	m.do(sysFcntl, deviceFD, fSetFL, oRdwr|oNonblock, 0, 0, 0)
	pollFD[0], pollFD[4] = deviceFD, pollIn
	left[1] = patience
	for range maxAnswered {
		n := m.request()
		if n == 0 {
			break
		}
		if !m.answer(requestBuf[:n]) {
			served.Request = requestBuf[:n]
			break
		}
	}
	m.do(sysFcntl, deviceFD, fSetFL, oRdwr, 0, 0, 0)
	for _, fd := range fileFDs {
		if fd != none {
			m.do(sysClose, fd, 0, 0, 0, 0, 0)
		}
	}
}

// request reads a request, and gives its size; 0 if none is to be waited for.
func (m *machine) request() int {
	for {
		switch r := m.do(sysPpoll, address(pollFD[:]), 1, uintptr(unsafe.Pointer(&left)), 0, 0, 0); {
		case r == 0 || failed(r) && r != eintr:
			return 0
		}
		switch r := m.do(sysRead, deviceFD, address(requestBuf[:]), uintptr(len(requestBuf)), 0, 0, 0); {
		case r == enodev:
			exit(0)
		case r == eagain || r == eintr || r == enoent:
		case failed(r):
			return 0
		default:
			return int(r)
		}
	}
}

// answer answers a request. It tells whether it could.
func (m *machine) answer(request []byte) bool {
	if len(request) < requestHeader {
		return false
	}
	switch get32(request[4:]) {
	case opcodeForget, opcodeBatchForget, opcodeInterrupt:
		return true // all others are answered at once
	case opcodeInit:
		if len(request) > len(initBuf) {
			return false
		}
	}
	e := table.find(request)
	if e == nil {
		return false
	}
	n, begins := e.size(), get32(request[4:]) == opcodeInit
	if e.file() == noFile {
		copy(replyBuf[replyHeader:], e.data())
	} else if !m.readFile(e) {
		return false
	}
	put32(replyBuf[:], uint32(replyHeader+n))
	copy(replyBuf[4:8], e[4:8])
	copy(replyBuf[8:16], request[8:16])
	r := m.do(sysWrite, deviceFD, address(replyBuf[:]), uintptr(replyHeader+n), 0, 0, 0)
	if failed(r) && r != enoent { // it was not taken back meanwhile
		return false
	}
	if begins {
		served.Init = initBuf[:copy(initBuf[:], request)]
		served.InitReply = initReplyBuf[:copy(initReplyBuf[:], replyBuf[:replyHeader+n])]
	}
	return true
}

// readFile reads the data of an answer.
func (m *machine) readFile(e answer) bool {
	fd := &fileFDs[e.file()]
	if *fd == none {
		*fd = m.do(sysOpenat, atCwd, address(table.paths[e.file()]), oCloexec, 0, 0, 0)
		if failed(*fd) {
			*fd = none
			return false
		}
	}
	data := replyBuf[replyHeader:]
	return m.do(sysPread64, *fd, address(data), uintptr(e.size()), uintptr(e.offset()), 0, 0) == uintptr(e.size())
}
