package importexport

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestFindImage: what a name means on a server like the public one.
func TestFindImage(t *testing.T) {
	products, err := parseProducts(likePublic(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"alpine": "alpine:3.21", "alpine:3.9": "alpine:3.9", "alpine:edge": "alpine:edge", "alpine/edge/default": "alpine:edge",
		"debian": "debian:trixie", "debian:12": "debian:bookworm", "bookworm": "debian:bookworm", "sid": "debian:sid",
		"ubuntu": "ubuntu:noble", "ubuntu:noble": "ubuntu:noble", "noble": "ubuntu:noble", "ubuntu:24.04": "ubuntu:noble",
		"ubuntu:noble:cloud": "ubuntu:noble:cloud", "ubuntu:noble:amd64:cloud": "ubuntu:noble:cloud",
		"fedora": "fedora:41", "rawhide": "fedora:rawhide", "archlinux": "archlinux:current",
		"gentoo": "gentoo:current:openrc", "gentoo:systemd": "gentoo:current:systemd", "gentoo:current": "gentoo:current:openrc",
		"opensuse": "opensuse:15.6", "tumbleweed": "opensuse:tumbleweed", "rockylinux": "rockylinux:9", "centos": "centos:10-stream",
		"mint": "mint:wilma", "current": "", "9": "", "nosuch": "", "ubuntu:noble:nosuch": "", "onlysquashfs": "", "debian:noble": "",
	} {
		parts, err := splitName(name)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		p, err := findImage(products, "amd64", parts)
		if err == nil {
			got = p.name()
		}
		if got != want {
			t.Errorf("%s: %q, want %q (%v)", name, got, want, err)
		}
	}
	parts := []string{"current"}
	if _, err := findImage(products, "amd64", parts); err == nil || !strings.Contains(err.Error(), "ambiguous: archlinux:current, gentoo:current:openrc, ") && !strings.Contains(err.Error(), "ambiguous: archlinux:current, voidlinux:current") {
		t.Errorf("current: %v", err)
	}
}

// likePublic is a product list in the form of the public server's.
func likePublic(t *testing.T) []byte {
	t.Helper()
	products := map[string]any{
		"onlysquashfs:1:amd64:default": map[string]any{"versions": map[string]any{"1": map[string]any{"items": map[string]any{
			"root.squashfs": map[string]any{"ftype": "squashfs", "path": "x", "sha256": strings.Repeat("a", 64), "size": 1},
		}}}},
		"nonsense":               17,
		"a:b:c":                  map[string]any{},
		"bad name:1:amd64:cloud": map[string]any{},
	}
	for _, line := range []string{
		"alpine:3.9:default", "alpine:3.20:default", "alpine:3.21:default", "alpine:edge:default",
		"debian:bookworm:default debian/12", "debian:trixie:default debian/13", "debian:forky:default debian/14", "debian:sid:default",
		"ubuntu:jammy:default ubuntu/22.04", "ubuntu:noble:default ubuntu/24.04", "ubuntu:oracular:default", "ubuntu:noble:cloud",
		"fedora:9:default", "fedora:40:default", "fedora:41:default", "fedora:rawhide:default", "archlinux:current:default",
		"gentoo:current:openrc gentoo/openrc", "gentoo:current:systemd gentoo/systemd", "opensuse:15.6:default", "opensuse:tumbleweed:default",
		"rockylinux:8:default", "rockylinux:9:default", "centos:9-Stream:default", "centos:10-Stream:default",
		"mint:virginia:default", "mint:wilma:default", "voidlinux:current:default", "voidlinux:current:musl",
	} {
		key, aliases, _ := strings.Cut(line, " ")
		part := strings.Split(key, ":")
		for _, arch := range []string{"amd64", "arm64"} {
			products[part[0]+":"+part[1]+":"+arch+":"+part[2]] = map[string]any{
				"aliases": strings.Join([]string{part[0] + "/" + part[1] + "/" + part[2], aliases}, ","),
				"arch":    arch, "os": strings.ToUpper(part[0][:1]) + part[0][1:], "release": part[1],
				"release_title": part[1], "variant": part[2], "requirements": map[string]any{"secureboot": "false"},
				"versions": map[string]any{"20240601_13:00": map[string]any{"items": map[string]any{
					"incus.tar.xz": map[string]any{"ftype": "incus.tar.xz", "path": "meta.tar.xz", "sha256": strings.Repeat("b", 64), "size": 10},
					"root.tar.xz":  map[string]any{"ftype": "root.tar.xz", "path": key + "/rootfs.tar.xz", "sha256": strings.Repeat("c", 64), "size": 10},
				}}},
			}
		}
	}
	data, err := json.Marshal(map[string]any{"format": "products:1.0", "products": products})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRootfsOf(t *testing.T) {
	sum := strings.Repeat("0A", 32)
	item := func(ftype, path string) string {
		return fmt.Sprintf(`{"ftype":%q,"path":%q,"sha256":%q,"size":5}`, ftype, path, sum)
	}
	for items, want := range map[string]string{
		`{"root.tar.xz":` + item("root.tar.xz", "a/rootfs.tar.xz") + `}`:                                              "a/rootfs.tar.xz",
		`{"root.tar.xz":` + item("", "a/b.bin") + `}`:                                                                 "a/b.bin",
		`{"x":` + item("combined", "a/rootfs.tar.gz") + `}`:                                                           "a/rootfs.tar.gz",
		`{"x":` + item("root.tar.xz", "a/x") + `,"y":` + item("root.tar.zst", "a/y") + `}`:                            "a/y",
		`{"x":` + item("root.tar.xz", "a/x") + `,"y":` + item("root.tar.xz", "a/w") + `}`:                             "a/w",
		`{"x":` + item("root.tar.xz", "/a/x") + `}`:                                                                   "",
		`{"x":` + item("root.tar.xz", "a/../../x") + `}`:                                                              "",
		`{"x":` + item("root.tar.xz", "http://h/x") + `}`:                                                             "",
		`{"x":` + item("root.tar.xz", "") + `}`:                                                                       "",
		`{"x":` + item("squashfs", "root.squashfs") + `}`:                                                             "",
		`{"x":` + item("root.tar.lz4", "x") + `}`:                                                                     "",
		`{"x":{"ftype":"root.tar.xz","path":"x","sha256":"` + sum + `"}}`:                                             "",
		`{"x":{"ftype":"root.tar.xz","path":"x","sha256":"` + sum + `","size":-1}}`:                                   "",
		`{"x":{"ftype":"root.tar.xz","path":"x","sha256":"zz","size":1}}`:                                             "",
		`{"x":{"ftype":"root.tar.xz","path":"x","sha256":"` + sum + `","size":1e99}}`:                                 "",
		`{"x":{"ftype":"root.tar.xz","path":["x"],"sha256":"` + sum + `","size":1}}`:                                  "",
		`{"x":{"ftype":"root.tar.xz","path":"x","sha256":"` + strings.ToLower(sum) + `","size":9223372036854775807}}`: "x",
	} {
		got := ""
		if it := rootfsOf(json.RawMessage(`{"items":` + items + `}`)); it != nil {
			got = it.path
		}
		if got != want {
			t.Errorf("%s: %q, want %q", items, got, want)
		}
	}
}

func TestCompareNatural(t *testing.T) {
	sorted := []string{"", "3", "3.9", "3.09x", "3.10", "3.20", "9-stream", "10", "10-stream", "20240601_13:00", "20240602_01:00", "edge", "edge2", "edge10", "edges"}
	for i, a := range sorted {
		for j, b := range sorted {
			want := min(max(i-j, -1), 1)
			if got := compareNatural(a, b); got != want {
				t.Errorf("%q and %q: %d, want %d", a, b, got, want)
			}
		}
	}
	if compareNatural("007", "7") != 0 {
		t.Error("leading zeros count")
	}
}

// FuzzProducts: no list of a server breaks the parser, and what it accepts is
// what the rest relies on.
func FuzzProducts(f *testing.F) {
	f.Add([]byte(`{"products":{"alpine:3.20:amd64:default":{"aliases":"alpine/3.20,,/,:","versions":{"1":{"items":{"root.tar.xz":{"ftype":"root.tar.xz","path":"a/../b","sha256":"`+strings.Repeat("a", 64)+`","size":1}}}}}}}`), "alpine")
	f.Add([]byte(`{"products":{"x":{"os":"A","release":"1","arch":"amd64","versions":null}}}`), "a:1")
	f.Add([]byte(`{"index":{"x":{"datatype":"image-downloads","path":"a"}}}`), ":")
	f.Add([]byte(`{"products":{"::::":[]}}`), "a/b/c/d")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if paths, err := parseIndex(data); err == nil {
			for _, p := range paths {
				checkPath(t, p)
			}
		}
		products, err := parseProducts(data)
		if err != nil {
			return
		}
		for _, p := range products {
			if p.dist == "" || p.release == "" || p.arch == "" || p.variant == "" {
				t.Errorf("incomplete product %+v", p)
			}
			if p.rootfs == nil {
				continue
			}
			checkPath(t, p.rootfs.path)
			if !validSHA256(p.rootfs.sha256) || p.rootfs.size <= 0 {
				t.Errorf("item %+v", p.rootfs)
			}
			if _, err := findImage(products, p.arch, []string{p.dist, p.release, p.arch, p.variant}); err != nil {
				t.Errorf("%s is not found: %v", p.name(), err)
			}
		}
		parts, err := splitName(name)
		if err != nil {
			return
		}
		if _, err := findImage(products, "amd64", parts); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}

func checkPath(t *testing.T, p string) {
	t.Helper()
	if p == "" || p[0] == '/' || p == ".." || strings.HasPrefix(p, "../") || strings.Contains(p, "/../") {
		t.Errorf("path %q", p)
	}
}
