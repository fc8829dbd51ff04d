package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

var someDigest = digest.FromString("some")

func TestParseRef(t *testing.T) {
	sum := string(someDigest)
	for in, want := range map[string]Ref{
		"alpine":                              {Host: "docker.io", Repository: "library/alpine", Tag: "latest"},
		"alpine:3.20":                         {Host: "docker.io", Repository: "library/alpine", Tag: "3.20"},
		"someone/thing":                       {Host: "docker.io", Repository: "someone/thing", Tag: "latest"},
		"index.docker.io/alpine":              {Host: "docker.io", Repository: "library/alpine", Tag: "latest"},
		"localhost/x:1":                       {Host: "localhost", Repository: "x", Tag: "1"},
		"localhost:5000/a/b__c.d-e--f":        {Host: "localhost:5000", Repository: "a/b__c.d-e--f", Tag: "latest"},
		"alpine@" + sum:                       {Host: "docker.io", Repository: "library/alpine", Digest: someDigest},
		"docker://[::1]:5000/x:y":             {Transport: Registry, Host: "[::1]:5000", Repository: "x", Tag: "y"},
		"docker://quay.io/a/b:1@" + sum:       {Transport: Registry, Host: "quay.io", Repository: "a/b", Tag: "1", Digest: someDigest},
		"docker-daemon:alpine:3":              {Transport: Engine, Host: "docker.io", Repository: "library/alpine", Tag: "3"},
		"docker-daemon:" + sum:                {Transport: Engine, Digest: someDigest},
		"docker-archive:/a/b.tar":             {Transport: DockerArchive, Path: "/a/b.tar"},
		"docker-archive:b.tar:alpine":         {Transport: DockerArchive, Path: "b.tar", Host: "docker.io", Repository: "library/alpine", Tag: "latest"},
		"docker-archive:b.tar:r.io:5000/x:1":  {Transport: DockerArchive, Path: "b.tar", Host: "r.io:5000", Repository: "x", Tag: "1"},
		"docker-archive:b.tar:@2":             {Transport: DockerArchive, Path: "b.tar", Index: 3},
		"oci:dir":                             {Transport: Layout, Path: "dir"},
		"oci:dir:v1":                          {Transport: Layout, Path: "dir", Tag: "v1"},
		"oci:dir:docker.io/library/alpine:v1": {Transport: Layout, Path: "dir", Tag: "docker.io/library/alpine:v1"},
		"oci-archive:a b.tar:@0":              {Transport: Archive, Path: "a b.tar", Index: 1},
		"docker:24":                           {Host: "docker.io", Repository: "library/docker", Tag: "24"},
	} {
		want.Index-- // in the table 0 means not given, for brevity
		got, err := ParseRef(in)
		if err != nil || got != want {
			t.Errorf("%s:\n%+v, %v, want\n%+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ":", "/", "Alpine", "alpine:", "alpine:-x", "a//b", "a/", "-a", "a-", "a..b", "a___b", "alpine@", "alpine@sha256:00", "alpine@md5:x",
		"docker://", "docker://h.io/", "docker-archive:", "oci:", "oci:x:", "oci:x:a b", "oci-archive::t", "docker-archive:f:",
		"docker-archive:f:@x", "docker-archive:f:@-1", "docker-archive:f:@01", "oci:x\x00y", "h.io:0/x", "h.io:70000/x", "h.io:x/y", "[::1/x", "h..io/x",
		"http://x.io/y", "containers-storage:x", "dir:/x", "x:y:z", strings.Repeat("a", 300), "docker-daemon:",
	} {
		if r, err := ParseRef(in); !errors.Is(err, ErrBadRef) {
			t.Errorf("%q: %+v, %v", in, r, err)
		}
	}
}

func TestFamiliar(t *testing.T) {
	for in, want := range map[string]string{
		"alpine": "alpine:latest", "docker.io/library/alpine:3": "alpine:3", "docker.io/a/b": "a/b:latest", "x.io/a": "x.io/a:latest",
		"library/a/b": "library/a/b:latest", "alpine:1@" + string(someDigest): "alpine:1@" + string(someDigest),
		"docker-daemon:" + string(someDigest): string(someDigest),
	} {
		r, err := ParseRef(in)
		if err != nil || r.Familiar() != want {
			t.Errorf("%s: %s, %v, want %s", in, r.Familiar(), err, want)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{
		"alpine", "docker://h.io:5000/a/b:c@" + string(someDigest), "docker-archive:x:y:z", "oci:x:@1", "docker-daemon:" + string(someDigest),
		"oci-archive:f", "library/localhost/x", "docker.io/localhost/x", "[::]/x", "A/b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			if !errors.Is(err, ErrBadRef) || r != (Ref{}) {
				t.Fatalf("%q: %+v, %v", s, r, err)
			}
			return
		}
		again, err := ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %+v, as a string %q: %+v, %v", s, r, r.String(), again, err)
		}
		if r.Repository == "" || HasTransport(r.Familiar()) {
			return
		}
		named, err := ParseRef(r.Familiar())
		if err != nil || named.Name() != r.Name() {
			t.Fatalf("%q: familiar %q: %+v, %v", s, r.Familiar(), named, err)
		}
	})
}
