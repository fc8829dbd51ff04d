package image

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// severalImages are the members of an archive of docker save with the images one:1 and two:1, of which
// the second has another name.
func severalImages(t *testing.T) (members map[string]string, one, two *made) {
	t.Helper()
	one = makeImage(t, "one:1", []string{""}, baseTar(t))
	two = makeImage(t, "r.io/two:1", []string{""}, topTar(t))
	members = map[string]string{"manifest.json": ""}
	var items []dockerItem
	for i, m := range []*made{one, two} {
		name := string('a'+rune(i)) + "/layer.tar"
		config := string('a'+rune(i)) + ".json"
		members[name], members[config] = string(m.tars[0]), string(m.config)
		items = append(items, dockerItem{Config: config, RepoTags: []string{m.name, "r.io/other:" + m.name[:3]}[:i+1], Layers: []string{name}})
	}
	list, err := json.Marshal(items)
	must(t, err)
	members["manifest.json"] = string(list)
	return members, one, two
}

func TestPickDocker(t *testing.T) {
	members, one, two := severalImages(t)
	items := archiveOf(t, members)
	for _, file := range []string{writeFile(t, items), writeFile(t, gzipped(t, items))} {
		for within, want := range map[string]*made{
			":one:1": one, ":docker.io/library/one:1": one, ":r.io/two:1": two, ":@0": one, ":@1": two,
			"": nil, ":one": nil, ":two:1": nil, ":@2": nil, ":r.io/one:1": nil,
		} {
			st := newStore(t)
			id, err := importRef(t, st, "docker-archive:"+file+within, OpenOptions{})
			if want == nil {
				var h interface{ Hint() string }
				if err == nil || !errors.Is(err, ErrNotFound) && within != "" {
					t.Errorf("%s: container %d, %v", within, id, err)
				} else if !strings.HasPrefix(within, ":@") && (!errors.As(err, &h) || !strings.Contains(h.Hint(), "one:1") || !strings.Contains(h.Hint(), "r.io/two:1")) {
					t.Errorf("%s: %v does not say what there is", within, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", within, err)
				continue
			}
			if config, err := st.Attached(id, ConfigFile); err != nil || string(config) != string(want.config) {
				t.Errorf("%s: config %s, %v", within, config, err)
			}
		}
	}
}

// platformIndex is a layout whose image v1 there is for two platforms and one machine's own.
func platformIndex(t *testing.T) (members map[string]string, images map[string]*made) {
	t.Helper()
	members, images = map[string]string{}, map[string]*made{}
	var all []v1.Descriptor
	for _, p := range []string{"linux/s390x", "linux/arm/v6", Platform{}.String()} {
		parsed, err := ParsePlatform(p)
		must(t, err)
		m := makeImage(t, p, []string{""}, makeTar(t, "platform", p))
		m.config = []byte(strings.Replace(string(m.config), `"architecture":"`+Platform{}.filled().Architecture+`"`,
			`"architecture":"`+parsed.Architecture+`","variant":"`+parsed.Variant+`"`, 1))
		m.seal(descriptor(v1.MediaTypeImageLayer, m.blobs[0]))
		images[p] = m
		for name, content := range m.members() {
			members[name] = content
		}
		all = append(all, v1.Descriptor{
			MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(m.manifest), Size: int64(len(m.manifest)),
			Platform: &v1.Platform{OS: parsed.OS, Architecture: parsed.Architecture, Variant: parsed.Variant},
		})
	}
	inner, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: all})
	must(t, err)
	members[blobName(digest.FromBytes(inner))] = string(inner)
	members[v1.ImageIndexFile] = `{"schemaVersion":2,"manifests":[` +
		strings.Replace(descriptor(v1.MediaTypeImageIndex, inner), "{", `{"annotations":{"`+v1.AnnotationRefName+`":"v1"},`, 1) + `]}`
	return members, images
}

func TestPlatformOfLayout(t *testing.T) {
	members, images := platformIndex(t)
	// Some programs put the manifests into index.json itself.
	flat := maps.Clone(members)
	for _, content := range members {
		if strings.Contains(content, "s390x") && strings.Contains(content, "manifests") {
			flat[v1.ImageIndexFile] = content
		}
	}
	if flat[v1.ImageIndexFile] == members[v1.ImageIndexFile] {
		t.Fatal("no index found")
	}
	for _, ref := range []string{"oci:" + writeLayout(t, members) + ":v1", "oci-archive:" + writeFile(t, zstded(t, archiveOf(t, members))), "oci:" + writeLayout(t, flat)} {
		st := newStore(t)
		for ask, want := range map[string]string{"": Platform{}.String(), "linux/s390x": "linux/s390x", "linux/arm": "linux/arm/v6", "linux/arm/v5": "", "linux/ppc64le": ""} {
			p, err := ParsePlatform(ask)
			must(t, err)
			id, err := importRef(t, st, ref, OpenOptions{Platform: p})
			if want == "" {
				var h interface{ Hint() string }
				if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "linux/s390x, linux/arm/v6") || !errors.As(err, &h) {
					t.Errorf("%s for %s: container %d, %v", ref, ask, id, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s for %s: %v", ref, ask, err)
				continue
			}
			if config, err := st.Attached(id, ConfigFile); err != nil || string(config) != string(images[want].config) {
				t.Errorf("%s for %s: config %s, %v", ref, ask, config, err)
			}
		}
	}
	// One that is for another machine is refused where that is asked for, and else taken.
	alone := writeLayout(t, images["linux/s390x"].members())
	p, err := ParsePlatform("linux/arm64")
	must(t, err)
	if id, err := importRef(t, newStore(t), "oci:"+alone, OpenOptions{Platform: p}); !errors.Is(err, ErrNotFound) {
		t.Errorf("container %d, %v", id, err)
	}
	if _, err := importRef(t, newStore(t), "oci:"+alone, OpenOptions{}); err != nil {
		t.Error(err)
	}
}

// TestNamesOfLayouts: programs write names into an index in several ways.
func TestNamesOfLayouts(t *testing.T) {
	named := func(pairs ...string) v1.Descriptor {
		d := v1.Descriptor{Annotations: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			d.Annotations[pairs[i]] = pairs[i+1]
		}
		return d
	}
	all := []v1.Descriptor{
		named(v1.AnnotationRefName, "v1"),
		named(v1.AnnotationRefName, "latest", containerdName, "docker.io/library/alpine:latest"),
		named(v1.AnnotationRefName, "docker.io/some/thing:2"),
		named(),
	}
	for want, ref := range []string{"oci:x:v1", "oci:x:alpine:latest", "oci:x:some/thing:2", "oci:x:@3"} {
		r, err := ParseRef(ref)
		must(t, err)
		d, err := pick(all, r, Platform{})
		if i := slices.IndexFunc(all, func(o v1.Descriptor) bool { return maps.Equal(o.Annotations, d.Annotations) }); err != nil || i != want {
			t.Errorf("%s: number %d, %v, want %d", ref, i, err, want)
		}
	}
	for _, ref := range []string{"oci:x:v2", "oci:x:alpine:v1", "oci:x:@4"} {
		r, err := ParseRef(ref)
		must(t, err)
		if d, err := pick(all, r, Platform{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, %v", ref, d, err)
		}
	}
}

// TestDockerWithContainerd: an archive of a docker whose layers are compressed has the manifest that the
// registry has.
func TestDockerWithContainerd(t *testing.T) {
	m := makeImage(t, "one:1", []string{"gzip"}, baseTar(t), topTar(t))
	list, err := json.Marshal([]dockerItem{{
		Config: blobName(digest.FromBytes(m.config)), RepoTags: []string{"one:1"},
		Layers: []string{blobName(digest.FromBytes(m.blobs[0])), blobName(digest.FromBytes(m.blobs[1]))},
	}})
	must(t, err)
	m.more["manifest.json"] = string(list)
	archive := archiveOf(t, m.members())
	for _, content := range [][]byte{archive, gzipped(t, archive)} {
		st := newStore(t)
		id, err := importRef(t, st, "docker-archive:"+writeFile(t, content)+":one:1", OpenOptions{})
		must(t, err)
		checkKept(t, st, id, m)
	}
	// Where they are not, the manifest has only been made for the archive.
	plain := makeImage(t, "one:1", []string{""}, baseTar(t))
	plain.more["manifest.json"] = `[{"Config":"` + blobName(digest.FromBytes(plain.config)) + `","Layers":["` + blobName(digest.FromBytes(plain.blobs[0])) + `"]}]`
	st := newStore(t)
	id, err := importRef(t, st, "docker-archive:"+writeFile(t, archiveOf(t, plain.members())), OpenOptions{})
	must(t, err)
	if b, err := st.Attached(id, ManifestFile); err == nil {
		t.Errorf("manifest %s", b)
	}
}

// TestLinkedLayers: docker save used to write a layer that is there twice as a link.
func TestLinkedLayers(t *testing.T) {
	m := makeImage(t, "x:1", []string{""}, baseTar(t), topTar(t), baseTar(t))
	members := m.dockerMembers()
	dir := func(i int) string { return strings.Repeat("0", 63) + string('0'+rune(i)) }
	members[dir(2)+"/layer.tar"] = "-> ../" + dir(0) + "/layer.tar"
	archive := archiveOf(t, members)
	for _, content := range [][]byte{archive, gzipped(t, archive)} {
		st := newStore(t)
		if _, err := importRef(t, st, "docker-archive:"+writeFile(t, content), OpenOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestIndexesOfIndexes: indexes that list one another many times over are read once each.
func TestIndexesOfIndexes(t *testing.T) {
	m := makeImage(t, "x:1", []string{""}, baseTar(t))
	members := m.dockerMembers()
	below := `{"schemaVersion":2,"manifests":[]}`
	for range 20 {
		members[blobName(digest.FromString(below))] = below
		d := descriptor(v1.MediaTypeImageIndex, []byte(below))
		below = `{"schemaVersion":2,"manifests":[` + strings.Repeat(d+",", 99) + d + `]}`
	}
	members[v1.ImageIndexFile] = below
	if _, err := importRef(t, newStore(t), "docker-archive:"+writeFile(t, archiveOf(t, members)), OpenOptions{}); err != nil {
		t.Error(err)
	}
}
