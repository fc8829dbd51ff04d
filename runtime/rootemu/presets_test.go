package rootemu

import (
	"os"
	"testing"
)

func TestPresets(t *testing.T) {
	dir := t.TempDir()
	some, err := Presets(dir, func(path string) bool { return path == "etc/apt/apt.conf.d" })
	if err != nil || !some {
		t.Fatal(some, err)
	}
	text, err := os.ReadFile(dir + "/etc/apt/apt.conf.d/zz-plash")
	if err != nil || string(text) != "APT::Sandbox::User \"root\";\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Stat(dir + "/usr"); err == nil {
		t.Error("there is a preset that nobody reads")
	}
}
