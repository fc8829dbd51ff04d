package importexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"syscall"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/progress"
)

// maxRestarts is how often a download begins anew because the file changed on
// the server under way.
const maxRestarts = 3

// download is a file to be imported from a server.
type download struct {
	url    *url.URL
	size   int64  // that it must have, -1: any
	sha256 string // hexadecimal digits, "": any
}

// ingest downloads d into the store. It returns the staged layer, with the
// SHA-256 of the bytes it was made from, which is that of d if d has one.
func (d *download) ingest(ctx context.Context, st *container.Store, c *fetch.Client, display progress.Display) (_ *cas.Staged, sum string, err error) {
	defer display.Close()
	for try := 1; ; try++ {
		staged, sum, err := d.once(ctx, st, c, display)
		if err == nil || !errors.Is(err, fetch.ErrChanged) || try == maxRestarts {
			return staged, sum, err
		}
	}
}

func (d *download) once(ctx context.Context, st *container.Store, c *fetch.Client, display progress.Display) (_ *cas.Staged, sum string, err error) {
	s := c.Open(ctx, d.url, d.size, display)
	defer s.Close()
	staged, err := st.CAS().Ingest(ctx, s, cas.IngestOptions{})
	if s.Err() != nil && !errors.Is(s.Err(), io.EOF) {
		// What the store says of half a file is of no use.
		return nil, "", errors.Join(s.Err(), closeStaged(staged, err))
	}
	var errno syscall.Errno
	if err != nil && (d.sha256 == "" || errors.As(err, &errno)) {
		return nil, "", unusable(s, err)
	}
	// Bytes behind the end of the archive belong to the file as well. After a
	// damaged one, its checksum tells that it is not what was promised.
	if _, drain := io.Copy(io.Discard, s); drain != nil {
		return nil, "", errors.Join(drain, closeStaged(staged, err))
	}
	sum = s.SHA256()
	if d.sha256 != "" && sum != d.sha256 {
		return nil, "", errors.Join(
			s.Wrap(fmt.Errorf("%w: expected sha256 %s, found %s", fetch.ErrChecksum, d.sha256, sum)),
			closeStaged(staged, err))
	}
	if err != nil {
		return nil, "", unusable(s, err)
	}
	return staged, sum, nil
}

// unusable is the error about a download that is complete and no layer.
func unusable(s *fetch.Stream, err error) error {
	err = fmt.Errorf("import %s: %w", s.URL().Redacted(), err)
	if s.IsPage() {
		return &hinted{err, "the server has sent a web page; is the URL that of the file itself?"}
	}
	return err
}

// closeStaged drops what Ingest made unless it failed.
func closeStaged(staged *cas.Staged, err error) error {
	if err != nil {
		return nil // there is nothing to drop, and a better error is at hand
	}
	return staged.Close()
}
