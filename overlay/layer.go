package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ihucos/plash/cas"
)

// PackUpper packs an upper directory and takes it into the store in the same
// pass, as a layer that is not published yet.
func PackUpper(ctx context.Context, s *cas.Store, dir *os.File) (*cas.Staged, error) {
	return ingestPacked(ctx, s, dir, PackOptions{Upper: true})
}

// PackContent packs the plain content of a directory as a layer that goes on top of
// layers, and takes it into the store in the same pass. What dir itself looks like
// is not content: the root keeps owner, mode, time and attributes that it has in
// the layers, if there are any. What belongs to a caller who is not root belongs to root
// in the layer, as it does while he builds one.
func PackContent(ctx context.Context, s *cas.Store, layers []Layer, dir *os.File) (*cas.Staged, error) {
	root, err := rootOf(ctx, s, layers)
	if err != nil {
		return nil, err
	}
	return ingestPacked(ctx, s, dir, PackOptions{Root: root, Owners: ownToRoot()})
}

// ownToRoot makes files of the caller root's, if he is not root.
func ownToRoot() func(uid, gid uint32) (uint32, uint32) {
	me, mine := uint32(os.Geteuid()), uint32(os.Getegid())
	if me == 0 {
		return nil
	}
	return func(uid, gid uint32) (uint32, uint32) {
		if uid == me {
			uid = 0
		}
		if gid == mine {
			gid = 0
		}
		return uid, gid
	}
}

func ingestPacked(ctx context.Context, s *cas.Store, dir *os.File, o PackOptions) (*cas.Staged, error) {
	pr, pw := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := Pack(ctx, pw, dir, o)
		packed <- err
		pw.CloseWithError(err) // nil: the end
	}()
	staged, err := s.Ingest(ctx, pr, cas.IngestOptions{})
	// Ends a Pack that goes on writing to an Ingest that gave up.
	pr.CloseWithError(io.ErrClosedPipe)
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		// That Ingest did not get a whole tar is its consequence.
		err = packErr
	}
	if err != nil {
		if staged != nil {
			err = errors.Join(err, staged.Close())
		}
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	return staged, nil
}
