package imageserver

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Faults are what a server does wrong. The zero value is nothing. The indexes
// below streams/ are spared unless Indexes is set.
type Faults struct {
	Indexes bool

	Status      []int         // answers to the next requests, one after the other; 0: a good one
	RetryAfter  string        // header of these answers
	CutEvery    int64         // the connection is closed after so many bytes of a body
	StallAfter  int64         // after so many bytes of a body nothing comes any more
	CorruptAt   int64         // the byte at this offset of the file is wrong; 0: none is
	WrongLength int64         // is added to the Content-Length
	Chunked     bool          // no Content-Length
	NoRange     bool          // Range is not understood
	NoValidator bool          // neither ETag nor Last-Modified
	WeakETag    bool          // the ETag is a weak one
	ETag        func() string // takes the place of the file's
	Delay       time.Duration // before each piece of a body
	Redirect    string        // every request is sent here instead
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	f, ok := s.files[r.URL.Path]
	s.requests = append(s.requests, Request{r.URL.Path, r.Header.Get("Range"), r.UserAgent()})
	faults, status := s.faults, 0
	if strings.HasPrefix(r.URL.Path, "/streams/") && !faults.Indexes {
		faults = Faults{}
	} else if s.answered < len(faults.Status) {
		status = faults.Status[s.answered]
		s.answered++
	}
	s.mu.Unlock()
	switch {
	case status != 0:
		if faults.RetryAfter != "" {
			w.Header().Set("Retry-After", faults.RetryAfter)
		}
		http.Error(w, http.StatusText(status), status)
	case faults.Redirect != "" && r.URL.Path != faults.Redirect:
		http.Redirect(w, r, faults.Redirect, http.StatusFound)
	case !ok:
		http.NotFound(w, r)
	default:
		faults.serve(w, r, f)
	}
}

func (x Faults) serve(w http.ResponseWriter, r *http.Request, f *file) {
	content, err := f.open()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer content.Close()
	when := modified
	switch {
	case x.NoValidator:
		when = time.Time{}
	case x.ETag != nil:
		w.Header().Set("ETag", x.ETag())
	case x.WeakETag:
		w.Header().Set("ETag", `W/"`+f.sha256+`"`)
	default:
		w.Header().Set("ETag", `"`+f.sha256+`"`)
	}
	if x.NoRange {
		r.Header.Del("Range")
	}
	var body io.ReadSeeker = content
	if x.CorruptAt > 0 {
		body = &corruptor{ReadSeeker: content, at: x.CorruptAt}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&faultyWriter{ResponseWriter: w, x: x, request: r}, r, "", when, body)
}

// corruptor has one wrong byte.
type corruptor struct {
	io.ReadSeeker
	at, pos int64
}

func (c *corruptor) Seek(offset int64, whence int) (int64, error) {
	pos, err := c.ReadSeeker.Seek(offset, whence)
	c.pos = pos
	return pos, err
}

func (c *corruptor) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	if i := c.at - c.pos; i >= 0 && i < int64(n) {
		p[i] ^= 0x20
	}
	c.pos += int64(n)
	return n, err
}

// faultyWriter is a response whose body goes wrong under way.
type faultyWriter struct {
	http.ResponseWriter
	x       Faults
	request *http.Request
	written int64
}

func (w *faultyWriter) WriteHeader(status int) {
	h := w.Header()
	if w.x.Chunked {
		h.Del("Content-Length")
	} else if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && w.x.WrongLength != 0 {
		h.Set("Content-Length", strconv.FormatInt(n+w.x.WrongLength, 10))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	time.Sleep(w.x.Delay)
	cut := false
	for _, limit := range []int64{w.x.CutEvery, w.x.StallAfter} {
		if limit > 0 && w.written+int64(len(p)) >= limit {
			p, cut = p[:limit-w.written], true
		}
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	if w.x.Chunked {
		// A body that fits its buffer net/http gives a length all the same.
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
	if !cut || err != nil {
		return n, err
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	if w.x.StallAfter > 0 {
		<-w.request.Context().Done()
	}
	panic(http.ErrAbortHandler) // net/http's way to close the connection without more ado
}
