package share

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home", "me")
	outside := filepath.Join(dir, "outside")
	for _, d := range []string{home, outside, filepath.Join(dir, "x", "y")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "x", "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		list []string
		home string
		want string // paths; "?" after optional ones
	}{
		{nil, home, ""},
		{[]string{"", ""}, home, ""},
		{[]string{"default"}, "/home/me", "/dev? /etc/resolv.conf? /home? /proc? /sys? /tmp?"},
		{[]string{"default"}, "/root", "/dev? /etc/resolv.conf? /home? /proc? /root? /sys? /tmp?"},
		{[]string{"default"}, "", "/dev? /etc/resolv.conf? /home? /proc? /sys? /tmp?"},
		{[]string{"proc"}, "/", "/proc?"},
		{[]string{"home"}, "relative", "/home?"},
		{[]string{"host", "cgroup"}, home, "/home? /sys/fs/cgroup? /tmp?"},
		{[]string{"sys", "cgroup"}, home, "/sys?"},
		{[]string{"proc", "/etc", "/etc/", "//etc/../etc", "resolv"}, home, "/etc /proc?"},
		{[]string{dir + "/x/y", dir + "/x"}, "", dir + "/x"},
		{[]string{dir + "/x", link}, "", dir + "/x " + link}, // it leads out of the shared tree
	}
	for _, tt := range tests {
		binds, err := Parse(tt.list, tt.home)
		if err != nil {
			t.Errorf("%q: %v", tt.list, err)
			continue
		}
		var got []string
		for _, b := range binds {
			if b.Optional {
				b.Path += "?"
			}
			got = append(got, b.Path)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q: %q, want %s", tt.list, got, tt.want)
		}
	}
	for _, bad := range []string{"nosuchgroup", "/no/such/path", "/", "/etc/passwd/x", "./nothing"} {
		if _, err := Parse([]string{bad}, ""); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestParseHint: who names a group that there is not is told those that there are.
func TestParseHint(t *testing.T) {
	_, err := Parse([]string{"default", "nosuchgroup"}, "")
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || hinted.Hint() != "the groups are cgroup, default, dev, home, host, proc, resolv, sys, tmp" {
		t.Errorf("%v: hint %v", err, hinted)
	}
}

// TestBindAsJSON: what one process of plash tells another is what that gets.
func TestBindAsJSON(t *testing.T) {
	for _, b := range []Bind{{Path: "/a"}, {Path: "/a", Optional: true}, {Path: "/a", From: "/b"}} {
		text, err := json.Marshal(b)
		var got Bind
		if err = errors.Join(err, json.Unmarshal(text, &got)); err != nil || got != b {
			t.Errorf("%+v: %+v, %v", b, got, err)
		}
	}
}
