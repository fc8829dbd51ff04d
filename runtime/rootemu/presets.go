package rootemu

import (
	"fmt"
	"os"
	"path/filepath"
)

// A preset is a file that tells a package manager that there is one user.
type preset struct {
	dir, name, text string // dir is where the package manager has such files
}

var presets = []preset{
	// apt gives downloads to a user of its own; where nothing is remembered, that one stays root,
	// which apt takes for a failure (apt.conf(5)).
	{"etc/apt/apt.conf.d", "zz-plash", "APT::Sandbox::User \"root\";\n"},
	// rpm sets owner and mode of directories that packages have, also of those that are the host's
	// here, and gives up where that fails.
	{"usr/lib/rpm/macros.d", "macros.plash", "%_netsharedpath /dev:/home:/proc:/sys\n"},
}

// Presets writes files into dir, an empty directory, that are to go below the layers of a
// container for as long as its command runs, so that they are in no layer. Only the files are written that some
// program of the container reads: has tells whether it has a directory, by its path relative to
// the root. The directories that they are in are made. Presets tells whether there are any.
func Presets(dir string, has func(path string) bool) (bool, error) {
	some := false
	for _, p := range presets {
		if !has(p.dir) {
			continue
		}
		at := filepath.Join(dir, p.dir)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return some, fmt.Errorf("make presets: %w", err)
		}
		if err := os.WriteFile(filepath.Join(at, p.name), []byte(p.text), 0o644); err != nil {
			return some, fmt.Errorf("make presets: %w", err)
		}
		some = true
	}
	return some, nil
}
