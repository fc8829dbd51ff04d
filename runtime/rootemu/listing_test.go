package rootemu

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/overlay"
)

// layer gives the lines of the entries that the upper directory becomes, without those that
// every test has.
func (c *container) layer(t testing.TB) []string {
	t.Helper()
	flat, err := overlay.OpenFlat(context.Background(), c.store, c.layers, c.memory.Recall)
	must(t, err)
	defer flat.Close()
	upper, err := os.Open(c.Upper)
	must(t, err)
	defer upper.Close()
	var b bytes.Buffer
	must(t, overlay.Pack(context.Background(), &b, upper, overlay.PackOptions{Upper: true, Flat: flat}))
	lines := list(t, &b)
	return slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "./ ") || strings.HasPrefix(l, "self ")
	})
}

// list describes the entries of a tar.
func list(t testing.TB, from io.Reader) []string {
	t.Helper()
	var lines []string
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(t, err)
		line := fmt.Sprintf("%s %c %o %d:%d", strings.TrimPrefix(h.Name, "./"), h.Typeflag, h.Mode, h.Uid, h.Gid)
		if h.Name == "./" {
			line = "./" + line
		}
		switch h.Typeflag {
		case tar.TypeChar, tar.TypeBlock:
			line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
		case tar.TypeSymlink, tar.TypeLink:
			line += " -> " + h.Linkname
		case tar.TypeReg:
			line += fmt.Sprintf(" %d", h.Size)
		}
		var xattrs []string
		for name, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(name, "SCHILY.xattr."); ok {
				xattrs = append(xattrs, fmt.Sprintf(" %s=%x", name, value))
			}
		}
		slices.Sort(xattrs)
		lines = append(lines, line+strings.Join(xattrs, ""))
	}
}

func (c *container) wantLayer(t testing.TB, want ...string) {
	t.Helper()
	got := c.layer(t)
	if !slices.Equal(got, want) {
		t.Errorf("the layer is\n%s\nand should be\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
