package importexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// ErrNoLayer says that a container has no layer of its own.
var ErrNoLayer = errors.New("the empty root has no layer")

// ExportLayer writes the top layer of a container, the very bytes of its tar, with what it
// deletes as an OCI image says it (whiteouts).
func ExportLayer(ctx context.Context, st *container.Store, id container.ID, w io.Writer, o ExportOptions) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export layer of container %d: %w", id, err)
		}
	}()
	f, size, err := openLayer(ctx, st, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return progress.Show(o.Progress, func(m *progress.Meter) error {
		m.Expect(size)
		return output.Copy(ctx, w, f, 0, size, m.Add)
	})
}

// openLayer opens the blob of a container's layer. Once it is open the container may be removed.
func openLayer(ctx context.Context, st *container.Store, id container.ID) (_ *os.File, size int64, err error) {
	unlock, err := st.CAS().LockShared(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if id == 0 {
		return nil, 0, ErrNoLayer
	}
	r, err := st.Get(id)
	if err != nil {
		return nil, 0, err
	}
	f, err := st.CAS().OpenBlob(r.Layer)
	return f, r.Size, err
}
