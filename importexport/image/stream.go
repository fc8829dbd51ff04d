package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"

	"github.com/ihucos/plash/cas"
)

const (
	// maxDocuments is how many bytes of documents an archive that is read once may have.
	maxDocuments = 4 * MaxDocument
	// maxTrailer is how many bytes may follow its end.
	maxTrailer = 64 << 20
)

// streamFiles are the members of an archive that can be read but once, from its beginning to its
// end, and whose list of images may come last: documents are kept in memory, and everything
// that may be a layer is staged.
type streamFiles struct {
	st        *cas.Store
	allow     func(int) error
	documents map[string][]byte
	links     map[string]string
	layers    map[string]held
	failed    map[string]error // why a member is no layer
	bytes     int              // of documents
}

// readTar reads a whole archive, which is not compressed. If that fails the store is as before.
func readTar(ctx context.Context, st *cas.Store, r io.Reader, allow func(int) error) (_ *streamFiles, err error) {
	s := &streamFiles{
		st: st, allow: allow, documents: map[string][]byte{}, links: map[string]string{}, layers: map[string]held{}, failed: map[string]error{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	tracked := &errorReader{r: r}
	archive := tar.NewReader(tracked)
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if n == maxMembers || len(s.layers) > MaxLayers || len(s.failed) > MaxLayers {
			return nil, fmt.Errorf("%w: too many members in the archive", ErrMalformed)
		}
		name, m, ok := memberOf(h)
		switch {
		case !ok:
		case m.link != "":
			s.links[name] = m.link
		default:
			err = s.take(ctx, name, m.size, archive)
		}
		if err == nil && tracked.err != nil && !errors.Is(tracked.err, io.EOF) {
			err = tracked.err
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %s: %w", name, err)
		}
	}
	// What follows the end may be an error of whoever sends it.
	n, err := io.CopyN(io.Discard, r, maxTrailer)
	if err == nil {
		err = fmt.Errorf("more than %d bytes behind its end", n)
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return s, nil
}

// errorReader remembers how reading ended.
type errorReader struct {
	r   io.Reader
	err error
}

func (e *errorReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		e.err = err
	}
	return n, err
}

// take keeps a member. Its errors are those that end the import: of a member that is no
// layer is only noted why, as nobody may want it.
func (s *streamFiles) take(ctx context.Context, name string, size int64, r io.Reader) error {
	br := bufio.NewReaderSize(r, 128<<10)
	head, err := br.Peek(int(min(size, tarHead)))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if isDocument(head) && size <= MaxDocument {
		if s.bytes += int(size); s.bytes > maxDocuments {
			return fmt.Errorf("%w: more than %d bytes of documents", ErrMalformed, maxDocuments)
		}
		s.documents[name], err = readDocument(br, name, size)
		return err
	}
	if path.Base(name) == "VERSION" && size < tarHead { // of each layer, says docker save
		return nil
	}
	return s.takeLayer(ctx, name, size, br)
}

// tarHead is how much of a member tells whether it is a tar: a header.
const tarHead = 512

// isDocument reports whether a member that begins with head is JSON and not a tar, whose first
// name may begin with anything.
func isDocument(head []byte) bool {
	text := bytes.TrimLeft(head, " \t\r\n")
	isTar := len(head) >= 262 && string(head[257:262]) == "ustar"
	return len(text) > 0 && (text[0] == '{' || text[0] == '[') && !isTar
}

func (s *streamFiles) takeLayer(ctx context.Context, name string, size int64, r io.Reader) error {
	want := blobDigest(name)
	if isSHA256(want) {
		// The name is that of its uncompressed bytes, if it is one that the store has.
		if staged, err := s.st.StageBlob(want); err == nil {
			return s.keep(name, held{size: size, staged: staged})
		}
	}
	if want != "" {
		r = verify(io.NopCloser(r), want, size)
	}
	staged, err := s.st.Ingest(ctx, r, cas.IngestOptions{AnyEnd: true, Allow: s.allow})
	var errno syscall.Errno
	var limit *LimitError
	switch {
	case errors.As(err, &errno), errors.As(err, &limit), ctx.Err() != nil:
		return errors.Join(err, closeStaged(staged))
	case err != nil:
		s.failed[name] = err
		return nil
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		s.failed[name] = err
		return staged.Close()
	}
	return s.keep(name, held{size: size, staged: staged})
}

func closeStaged(staged *cas.Staged) error {
	if staged == nil {
		return nil
	}
	return staged.Close()
}

// keep notes a layer under its name. One that was there before is given up.
func (s *streamFiles) keep(name string, h held) error {
	old := s.layers[name]
	s.layers[name] = h
	return closeStaged(old.staged)
}

func (s *streamFiles) find(name string) (string, error) {
	at, _, err := follow(name, func(n string) (tarMember, bool) {
		if link, ok := s.links[n]; ok {
			return tarMember{link: link}, true
		}
		_, isDocument := s.documents[n]
		_, isLayer := s.layers[n]
		return tarMember{}, isDocument || isLayer || s.failed[n] != nil
	})
	return at, err
}

func (s *streamFiles) document(name string) ([]byte, error) {
	at, err := s.find(name)
	if err != nil {
		return nil, err
	}
	b, ok := s.documents[at]
	if !ok {
		return nil, fmt.Errorf("%w: %s is no JSON, or too large", ErrMalformed, name)
	}
	return b, nil
}

func (s *streamFiles) layer(name string) (held, error) {
	at, err := s.find(name)
	if err != nil {
		return held{}, err
	}
	if h, ok := s.layers[at]; ok {
		return h, nil
	}
	if err := s.failed[at]; err != nil {
		return held{open: func() (io.ReadCloser, error) { return nil, err }}, nil
	}
	return held{}, fmt.Errorf("%w: %s is no layer", ErrMalformed, name)
}

// Close gives up all layers.
func (s *streamFiles) Close() error {
	var err error
	for _, h := range s.layers {
		err = errors.Join(err, closeStaged(h.staged))
	}
	return err
}
