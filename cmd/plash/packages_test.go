package main

import (
	"archive/tar"
	"bytes"
	"testing"

	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/rogpeppe/go-internal/testscript"
)

// standInManager takes the place of a package manager: it notes its name and its arguments, each
// in brackets, on a line of /called.
const standInManager = `#!/bin/sh
{ printf '%s' "${0##*/}"; printf ' <%s>' "$@"; echo; } >>/called
`

// distributionPrograms are the programs that stand in, in images that stand in for those of
// distributions.
var distributionPrograms = map[string][]string{
	"alpine": {"apk", "pip", "pip3", "npm"}, "debian": {"apt-get", "add-apt-repository"}, "ubuntu": {"apt-get"}, "fedora": {"dnf"},
	"centos": {"yum"}, "archlinux": {"pacman"}, "gentoo": {"emerge", "emerge-webrsync"},
}

// TestScriptsPackages runs the scripts of testdata/packages with images of all distributions that
// build actions know.
func TestScriptsPackages(t *testing.T) {
	root, err := imageserver.BusyboxRoot()
	if err != nil {
		t.Skip(err)
	}
	server, err := imageserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, programs := range distributionPrograms {
		data, err := imageserver.XZ(withManagers(t, root, programs))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Add(imageserver.Image{Dist: name, Release: "1", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	letOthersExecute(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/packages",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setup(env, images{server: server.URL()}) },
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// withManagers is a root filesystem's tar with programs that stand in.
func withManagers(t *testing.T, root []byte, programs []string) []byte {
	t.Helper()
	var out bytes.Buffer
	out.Write(root[:len(root)-2*512]) // without its end
	w := tar.NewWriter(&out)
	// Where emerge-webrsync puts the ebuild repository.
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "var/db/repos/gentoo/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	for _, name := range programs {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "usr/local/bin/" + name, Mode: 0o755, Size: int64(len(standInManager))})
		if err == nil {
			_, err = w.Write([]byte(standInManager))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
