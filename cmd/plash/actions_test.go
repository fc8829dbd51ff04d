package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/ihucos/plash/build"
)

// Each name of each build action is used in a script, in a real container.
func TestActionsHaveScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	var all []byte
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	for _, a := range build.Actions() {
		for _, word := range a.Words() {
			used := regexp.MustCompile(`(?m)(^|[ '])` + word + `( |=|'|$)`)
			if !used.Match(all) {
				t.Errorf("%s is in no script below testdata", word)
			}
		}
	}
}
