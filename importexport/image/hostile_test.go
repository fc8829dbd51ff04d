package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// refused tries to import members in every form of transport, and wants an error of each that has the
// text, is one of the sentinels, and leaves the store as it was.
func refused(t *testing.T, transport Transport, members map[string]string, want error, text string, o OpenOptions) {
	t.Helper()
	archive := archiveOf(t, members)
	refs := []string{"oci-archive:" + writeFile(t, archive), "oci-archive:" + writeFile(t, gzipped(t, archive)), "oci:" + writeLayout(t, members)}
	if transport == DockerArchive {
		refs = []string{"docker-archive:" + writeFile(t, archive), "docker-archive:" + writeFile(t, gzipped(t, archive))}
	}
	for _, ref := range refs {
		st := newStore(t)
		before := listing(t, st)
		id, err := importRef(t, st, ref, o)
		switch {
		case err == nil:
			t.Errorf("%s: container %d", ref, id)
		case want != nil && !errors.Is(err, want), !strings.Contains(err.Error(), text):
			t.Errorf("%s: %v, want %v with %q", ref, err, want, text)
		case len(err.Error()) > 1000:
			t.Errorf("%s: an error of %d bytes", ref, len(err.Error()))
		}
		if after := listing(t, st); after != before {
			t.Errorf("%s: the store is not as before:\n%s", ref, after)
		}
	}
}

func TestHostileLayers(t *testing.T) {
	long := strings.Repeat("d/", 3000) + "f"
	for name, c := range map[string]struct {
		tar  []byte
		want error
		text string
	}{
		"dots":           {makeTar(t, "../../etc/passwd", "x"), erofs.ErrPath, ".."},
		"dots within":    {makeTar(t, "a/", "", "a/../../b", "x"), erofs.ErrPath, ".."},
		"hard link out":  {makeTar(t, "a", "=> ../../../etc/passwd"), erofs.ErrPath, ".."},
		"hard link away": {makeTar(t, "a", "=> etc/passwd"), nil, "etc/passwd"},
		"path":           {makeTar(t, long, "x"), nil, ""},
		"whiteout":       {makeTar(t, ".wh...", ""), erofs.ErrPath, ""},
		"no tar":         {[]byte(strings.Repeat("<html>", 1000)), tarstream.ErrHeader, ""},
		"cut":            {makeTar(t, "a", strings.Repeat("x", 5000))[:3000], tarstream.ErrTruncated, ""},
		"sparse":         {append(makeTar(t, "a", "x"), make([]byte, maxTrailer+1)...), nil, "behind the end"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []string{"", "gzip"} {
				m := makeImage(t, "x:1", []string{"", how}, baseTar(t), c.tar)
				refused(t, Archive, m.members(), c.want, c.text, OpenOptions{})
			}
			refused(t, DockerArchive, makeImage(t, "x:1", []string{""}, baseTar(t), c.tar).dockerMembers(), c.want, c.text, OpenOptions{})
		})
	}
}

// TestLinksStayInside: a symbolic link to anywhere is followed within the image, when an entry is put
// through it and when it is used.
func TestLinksStayInside(t *testing.T) {
	st := newStore(t)
	out := t.TempDir()
	m := makeImage(t, "x:1", []string{"gzip"}, makeTar(t, "out", "-> "+out, "up", "-> ../../..", "out/file", "evil", "up/other", "evil"))
	id, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
	must(t, err)
	if id == 0 {
		t.Error("no container")
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

func TestHostileDocuments(t *testing.T) {
	good := func() *made { return makeImage(t, "x:1", []string{"gzip"}, baseTar(t), topTar(t)) }
	layers := func(m *made) []string {
		return []string{descriptor(v1.MediaTypeImageLayerGzip, m.blobs[0]), descriptor(v1.MediaTypeImageLayerGzip, m.blobs[1])}
	}
	diff := func(m *made, i int) string { return string(digest.FromBytes(m.tars[i])) }
	replaced := func(b []byte, from, to string) []byte { return bytes.ReplaceAll(b, []byte(from), []byte(to)) }
	other := string(digest.FromString("other"))
	for name, c := range map[string]struct {
		change func(m *made)
		want   error
		text   string
	}{
		"diff id lies": {func(m *made) { m.config = replaced(m.config, diff(m, 1), other); m.seal(layers(m)...) }, cas.ErrDigest, diff(good(), 1)},
		"diff ids swapped": {func(m *made) {
			m.config = replaced(replaced(replaced(m.config, diff(m, 0), "?"), diff(m, 1), diff(m, 0)), "?", diff(m, 1))
			m.seal(layers(m)...)
		}, cas.ErrDigest, ""},
		"diff id missing": {func(m *made) { m.config = replaced(m.config, `,"`+diff(m, 1)+`"`, ""); m.seal(layers(m)...) }, ErrMalformed, "2 layers, its config 1"},
		"diff id of another kind": {func(m *made) {
			m.config = replaced(m.config, diff(m, 1), "sha512:"+strings.Repeat("0", 128))
			m.seal(layers(m)...)
		}, ErrMalformed, "sha512"},
		"layer missing":     {func(m *made) { m.seal(layers(m)[:1]...) }, ErrMalformed, "1 layers, its config 2"},
		"layers of nothing": {func(m *made) { m.seal() }, ErrMalformed, "0 layers, its config 2"},
		"blob missing":      {func(m *made) { m.blobs = m.blobs[:1] }, os.ErrNotExist, "layer 2 of 2"},
		"blob of other bytes": {func(m *made) {
			m.more[blobName(digest.FromBytes(m.blobs[1]))] = string(m.blobs[0])
		}, cas.ErrDigest, ""},
		"blob longer":  {func(m *made) { m.more[blobName(digest.FromBytes(m.blobs[1]))] = string(m.blobs[1]) + "x" }, cas.ErrDigest, ""},
		"blob shorter": {func(m *made) { m.more[blobName(digest.FromBytes(m.blobs[1]))] = string(m.blobs[1][:50]) }, cas.ErrDigest, ""},
		"blob damaged": {func(m *made) {
			m.more[blobName(digest.FromBytes(m.blobs[1]))] = string(replaced(m.blobs[1], "\x00", "\x01"))
		}, cas.ErrDigest, ""},
		"config of others":  {func(m *made) { m.more[blobName(digest.FromBytes(m.config))] = "{}" }, cas.ErrDigest, "config"},
		"config no JSON":    {func(m *made) { m.config = []byte("{"); m.seal(layers(m)...) }, ErrMalformed, "config"},
		"config of nothing": {func(m *made) { m.config = []byte("{}"); m.seal(layers(m)...) }, ErrMalformed, "config"},
		"manifest missing": {func(m *made) {
			m.index = []byte(`{"schemaVersion":2,"manifests":[` + descriptor(v1.MediaTypeImageManifest, []byte("x")) + `]}`)
		}, os.ErrNotExist, ""},
		"manifest of others": {func(m *made) {
			m.more[blobName(digest.FromBytes(m.manifest))] = string(m.config)
		}, cas.ErrDigest, ""},
		"encrypted": {func(m *made) { m.seal(descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", m.blobs[0])) }, nil, "encrypted"},
		"artifact": {func(m *made) {
			m.manifest = replaced(m.manifest, v1.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json")
		}, nil, "not a container image"},
		"schema 1": {func(m *made) {
			m.manifest = []byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`)
		}, ErrSchema1, "schema 1"},
		"negative size": {func(m *made) { m.manifest = replaced(m.manifest, `"size":`, `"size":-`) }, ErrMalformed, ""},
		"digest of paths": {func(m *made) {
			m.manifest = replaced(m.manifest, string(digest.FromBytes(m.config)), "sha256:../../../../etc/passwd")
		}, ErrMalformed, "passwd"},
		"both":  {func(m *made) { m.manifest = replaced(m.manifest, `"layers"`, `"manifests":[],"layers"`) }, ErrMalformed, "both"},
		"index": {func(m *made) { m.index = []byte("[]") }, ErrMalformed, ""},
		"too many layers": {func(m *made) {
			many := strings.TrimSuffix(strings.Repeat(`"`+other+`",`, 100_000), ",")
			m.config = []byte(`{"rootfs":{"type":"layers","diff_ids":[` + many + `]}}`)
			m.seal(layers(m)...)
		}, ErrMalformed, "100000 layers"},
		"too many layers in the manifest": {func(m *made) {
			m.seal(strings.TrimSuffix(strings.Repeat(layers(m)[0]+",", 50_000), ","))
		}, ErrMalformed, "50000 layers"},
		"giant config": {func(m *made) { m.config = bytes.Repeat([]byte(" "), MaxDocument+1); m.seal(layers(m)...) }, ErrMalformed, ""},
		"giant manifest": {func(m *made) {
			m.manifest = append(bytes.Repeat([]byte(" "), MaxDocument), m.manifest...)
		}, ErrMalformed, ""},
		"deep JSON": {func(m *made) { m.config = bytes.Repeat([]byte("["), 1<<20); m.seal(layers(m)...) }, ErrMalformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			c.change(m)
			refused(t, Archive, m.members(), c.want, c.text, OpenOptions{})
		})
	}
}

func TestHostileDockerArchives(t *testing.T) {
	good := func() *made { return makeImage(t, "x:1", []string{""}, baseTar(t), topTar(t)) }
	second := fmt.Sprintf("%064d", 1) + "/layer.tar"
	for name, c := range map[string]struct {
		change func(m *made)
		want   error
		text   string
	}{
		"diff id lies": {func(m *made) {
			m.config = bytes.ReplaceAll(m.config, []byte(digest.FromBytes(m.tars[1])), []byte(digest.FromString("other")))
		}, cas.ErrDigest, "expected " + string(digest.FromString("other"))},
		"other layer":   {func(m *made) { m.more[second] = string(m.tars[0]) }, cas.ErrDigest, "layer 2 of 2"},
		"link out":      {func(m *made) { m.more[second] = "-> ../../../../../../etc/passwd" }, os.ErrNotExist, "layer 2 of 2"},
		"link to links": {func(m *made) { m.more[second] = "-> layer.tar" }, ErrMalformed, "link"},
		"no list":       {func(m *made) { m.more["manifest.json"] = "-> x" }, ErrNotFound, "neither"},
		"bad list":      {func(m *made) { m.more["manifest.json"] = `{"a":1}` }, ErrMalformed, "manifest.json"},
		"empty list":    {func(m *made) { m.more["manifest.json"] = `[]` }, ErrNotFound, "empty"},
		"no config":     {func(m *made) { m.more["manifest.json"] = `[{}]` }, os.ErrNotExist, "config"},
		"too few": {func(m *made) {
			m.more["manifest.json"] = `[{"Config":"` + digest.FromBytes(m.config).Encoded() + `.json"}]`
		}, ErrMalformed, "0 layers"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			c.change(m)
			refused(t, DockerArchive, m.dockerMembers(), c.want, c.text, OpenOptions{})
		})
	}
}

// TestBadArchives are no archives, or cut off.
func TestBadArchives(t *testing.T) {
	m := makeImage(t, "x:1", []string{"gzip"}, baseTar(t), topTar(t))
	whole := archiveOf(t, m.members())
	for name, c := range map[string]struct {
		content []byte
		text    string
	}{
		"empty": {nil, "neither"}, "text": {[]byte(strings.Repeat("no tar\n", 1000)), "not a tar archive"},
		"short": {[]byte("x"), "cut off"}, "lz4": {[]byte("\x04\x22\x4d\x18abcdefgh"), "lz4"},
		"cut": {whole[:len(whole)/2/512*512+100], "cut off"}, "cut in a header": {whole[:bytes.LastIndex(whole, []byte("ustar"))], "cut off"},
		"damaged": {append(append(whole[:1024:1024], bytes.Repeat([]byte{0xff}, 512)...), whole[1536:]...), ""},
	} {
		for _, content := range [][]byte{c.content, gzipped(t, c.content)} {
			st := newStore(t)
			before := listing(t, st)
			if id, err := importRef(t, st, "oci-archive:"+writeFile(t, content), OpenOptions{}); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: container %d, %v", name, id, err)
			}
			if after := listing(t, st); after != before {
				t.Errorf("%s: the store is not as before:\n%s", name, after)
			}
			if c.text == "lz4" {
				break // within gzip it is only noise
			}
		}
	}
	first := m.members()
	maps.DeleteFunc(first, func(name, _ string) bool { return strings.HasPrefix(name, "blobs/") })
	cut := archiveOf(t, first)
	cut = cut[:len(cut)-1024] // without the end marker
	if id, err := importRef(t, newStore(t), "oci-archive:"+writeFile(t, cut), OpenOptions{}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut between members: container %d, %v", id, err)
	}
	zipped := gzipped(t, whole)
	if id, err := importRef(t, newStore(t), "oci-archive:"+writeFile(t, zipped[:len(zipped)/2]), OpenOptions{}); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("cut gzip: container %d, %v", id, err)
	}
}

// TestNestedIndexes: indexes may lie in one another, but not for ever.
func TestNestedIndexes(t *testing.T) {
	for depth, good := range map[int]bool{0: true, 1: true, 3: true, maxNesting + 1: false, 100: false} {
		m := makeImage(t, "x:1", []string{""}, baseTar(t))
		below, kind := m.manifest, v1.MediaTypeImageManifest
		for range depth {
			m.more[blobName(digest.FromBytes(below))] = string(below)
			below, kind = []byte(`{"schemaVersion":2,"manifests":[`+descriptor(kind, below)+`]}`), v1.MediaTypeImageIndex
		}
		m.more[blobName(digest.FromBytes(below))] = string(below)
		m.index = []byte(`{"schemaVersion":2,"manifests":[` + descriptor(kind, below) + `]}`)
		if !good {
			refused(t, Archive, m.members(), ErrMalformed, "indexes", OpenOptions{})
			continue
		}
		if _, err := importRef(t, newStore(t), "oci:"+writeLayout(t, m.members()), OpenOptions{}); err != nil {
			t.Errorf("%d deep: %v", depth, err)
		}
	}
}

// bomb is a gzip of a tar with a file of zeros.
func bomb(t *testing.T, size int64) (blob []byte, diffID digest.Digest) {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	sum := digest.SHA256.Digester()
	w := io.MultiWriter(z, sum.Hash())
	header := makeTar(t, "zeros", "")[:512]
	copy(header[124:136], fmt.Sprintf("%011o\x00", size))
	copy(header[148:156], "        ")
	total := 0
	for _, c := range header {
		total += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", total))
	_, err = w.Write(header)
	must(t, err)
	for left := size + 1024; left > 0; left -= 1 << 20 {
		_, err = w.Write(make([]byte, min(left, 1<<20)))
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes(), sum.Digest()
}

func TestBomb(t *testing.T) {
	const size = 64 << 20
	blob, diffID := bomb(t, size)
	m := makeImage(t, "x:1", []string{""})
	m.blobs = [][]byte{blob}
	m.config = bytes.Replace(m.config, []byte(`"diff_ids":[]`), []byte(`"diff_ids":["`+string(diffID)+`"]`), 1)
	m.seal(descriptor(v1.MediaTypeImageLayerGzip, blob))
	refused(t, Archive, m.members(), nil, "too large", OpenOptions{MaxSize: size})
	for _, o := range []OpenOptions{{}, {MaxSize: -1}, {MaxSize: size + 4096}} { // small enough for all
		if _, err := importRef(t, newStore(t), "oci:"+writeLayout(t, m.members()), o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestBudget(t *testing.T) {
	var limit *LimitError
	for _, c := range []struct {
		limit, sent, unpacked int64
		good                  bool
	}{
		{0, 1, freeSize, true},
		{0, 10, freeSize + 10*maxRatio, true},
		{0, 10, freeSize + 10*maxRatio + 1, false},
		{0, maxSize, maxSize, true},
		{0, maxSize, maxSize + 1, false},
		{100, 100, 100, true},
		{100, 100, 101, false},
		{2 * maxSize, 1, 2 * maxSize, true},
		{-1, 1, 1 << 62, true},
	} {
		b := &budget{limit: c.limit}
		b.sent.Store(c.sent)
		b.unpacked.Store(c.unpacked - 1)
		if err := b.allow(1); (err == nil) != c.good || err != nil && (!errors.As(err, &limit) || limit.Hint() == "") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestLayoutOfTraps: what is no file is not waited for, and links do not lead out.
func TestLayoutOfTraps(t *testing.T) {
	m := makeImage(t, "x:1", []string{""}, baseTar(t))
	for _, name := range []string{v1.ImageIndexFile, blobName(digest.FromBytes(m.config)), blobName(digest.FromBytes(m.blobs[0]))} {
		for what, set := range map[string]func(path string) error{
			"pipe": func(path string) error { return unix.Mkfifo(path, 0o644) },
			"dir":  func(path string) error { return os.Mkdir(path, 0o755) },
			"link": func(path string) error {
				outside := writeFile(t, []byte(m.members()[name]))
				return os.Symlink(outside, path)
			},
		} {
			st := newStore(t)
			dir := writeLayout(t, m.members())
			must(t, os.Remove(filepath.Join(dir, name)))
			must(t, set(filepath.Join(dir, name)))
			before := listing(t, st)
			if id, err := importRef(t, st, "oci:"+dir, OpenOptions{}); err == nil {
				t.Errorf("%s as a %s: container %d", name, what, id)
			}
			if after := listing(t, st); after != before {
				t.Errorf("%s as a %s: the store is not as before:\n%s", name, what, after)
			}
		}
	}
}

func TestInterrupted(t *testing.T) {
	st := newStore(t)
	m := makeImage(t, "x:1", []string{"gzip"}, baseTar(t), topTar(t))
	r, err := ParseRef("oci:" + writeLayout(t, m.members()))
	must(t, err)
	im, err := Open(t.Context(), st.CAS(), r, OpenOptions{})
	must(t, err)
	defer im.Close()
	ctx, cancel := context.WithCancel(t.Context())
	open := im.Layers[1].Open
	im.Layers[1].Open = func(ctx context.Context) (io.ReadCloser, error) {
		cancel()
		return open(ctx)
	}
	before := listing(t, st)
	if _, err := Keep(ctx, st, im, KeepOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if after := listing(t, st); after != before {
		t.Errorf("the store is not as before:\n%s", after)
	}
}
