package image

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzReadArchive: no archive makes a container in part, and none ends the program.
func FuzzReadArchive(f *testing.F) {
	m := makeImage(f, "x:1", []string{"", "gzip"}, makeTar(f, "a/", "", "a/b", "c"), makeTar(f, "a/.wh.b", ""))
	f.Add(archiveOf(f, m.members()), false)
	f.Add(archiveOf(f, m.dockerMembers()), true)
	m.more["index.json"] = strings.Repeat("[", 100)
	f.Add(gzipped(f, archiveOf(f, m.members())), false)
	st := newStore(f)
	f.Fuzz(func(t *testing.T, b []byte, docker bool) {
		ref := Ref{Transport: Archive, Index: -1}
		if docker {
			ref.Transport = DockerArchive
		}
		list, err := st.List()
		must(t, err)
		o := OpenOptions{MaxSize: 1 << 20}
		im, err := ReadArchive(t.Context(), st.CAS(), bytes.NewReader(b), ref, o)
		if err != nil {
			return
		}
		id, err := Keep(t.Context(), st, im, KeepOptions{MaxSize: o.MaxSize})
		must(t, im.Close())
		if err != nil {
			if after, err := st.List(); err != nil || len(after) != len(list) {
				t.Errorf("%d containers, before %d, %v", len(after), len(list), err)
			}
			return
		}
		if chain, err := st.Chain(id); err != nil || len(chain) != max(1, len(im.Layers)) {
			t.Errorf("%d containers of %d layers, %v", len(chain), len(im.Layers), err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	m := makeImage(f, "x:1", []string{"gzip"}, makeTar(f, "a", "b"))
	f.Add(string(m.manifest), v1.MediaTypeImageManifest, string(m.config))
	f.Add(m.members()[v1.ImageIndexFile], "", "{}")
	f.Add(`{"schemaVersion":1}`, DockerManifest, `{"rootfs":{"type":"layers"}}`)
	f.Fuzz(func(t *testing.T, manifest, mediaType, config string) {
		if parsed, err := ParseManifest([]byte(manifest), mediaType); err == nil && !isManifestType(parsed.MediaType) {
			t.Errorf("%+v", parsed)
		}
		if c, err := ParseConfig([]byte(config)); err == nil && len(c.DiffIDs) > MaxLayers {
			t.Errorf("%d layers", len(c.DiffIDs))
		}
		im, err := New([]byte(manifest), mediaType, []byte(config))
		if err != nil {
			return
		}
		for _, l := range im.Layers {
			if l.DiffID.Validate() != nil || l.Digest.Validate() != nil || l.Size < 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}
