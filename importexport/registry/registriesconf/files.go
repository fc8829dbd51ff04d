package registriesconf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// fileVar names the file to read in place of all others, and lastVar one to read after them.
	fileVar = "CONTAINERS_REGISTRIES_CONF"
	lastVar = fileVar + "_OVERRIDE"
)

// places are the directories that have the files.
type places struct {
	user   string // "": there is none
	admin  string
	vendor string
	uid    int
}

// Load reads the files that are there: that of $CONTAINERS_REGISTRIES_CONF, or else the first of
// $XDG_CONFIG_HOME/containers/registries.conf (~/.config/…), /etc/containers/registries.conf and
// /usr/share/containers/registries.conf, and what lies in the directories registries.conf.d beside them,
// registries.rootful.conf.d for root and registries.rootless.conf.d for others, by the files' names, of two with
// the same name that of the user, or of the administrator; at last that of $CONTAINERS_REGISTRIES_CONF_OVERRIDE.
// A later one takes the place of tables that an earlier one has for the same prefix. Errors name the file.
func Load() (*Config, error) {
	p := places{user: os.Getenv("XDG_CONFIG_HOME"), admin: "/etc/containers", vendor: "/usr/share/containers", uid: os.Getuid()}
	if p.user == "" && os.Getenv("HOME") != "" {
		p.user = filepath.Join(os.Getenv("HOME"), ".config")
	}
	if p.user != "" {
		p.user = filepath.Join(p.user, "containers")
	}
	return p.load(os.Getenv(fileVar), os.Getenv(lastVar))
}

// load reads the only file, or else those of the places, and then the last one.
func (p places) load(only, last string) (*Config, error) {
	c := &Config{}
	if only != "" {
		if err := c.read(only); err != nil {
			return nil, fmt.Errorf("%s: %w", fileVar, err)
		}
	} else if err := p.read(c); err != nil {
		return nil, err
	}
	if last != "" {
		if err := c.read(last); err != nil {
			return nil, fmt.Errorf("%s: %w", lastVar, err)
		}
	}
	return c, nil
}

func (p places) read(c *Config) error {
	for _, dir := range []string{p.user, p.admin, p.vendor} {
		if dir == "" {
			continue
		}
		err := c.read(filepath.Join(dir, "registries.conf"))
		if err == nil {
			break
		}
		if !p.absent(dir, err) {
			return err
		}
	}
	names, err := p.dropIns()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// absent reports whether an error says that there is nothing. That a home is another's is no reason to fail.
func (p places) absent(dir string, err error) bool {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true
	}
	if dir != p.user || !errors.Is(err, fs.ErrPermission) {
		return false
	}
	_, err = os.Stat(dir)
	return errors.Is(err, fs.ErrPermission)
}

// dropIns returns the files of the directories, in the order in which they count.
func (p places) dropIns() ([]string, error) {
	paths := map[string]string{} // by name
	for _, d := range p.dropInDirs() {
		entries, err := os.ReadDir(d)
		if err != nil {
			if p.absent(filepath.Dir(d), err) {
				continue
			}
			return nil, err
		}
		for _, e := range entries {
			if path := filepath.Join(d, e.Name()); strings.HasSuffix(path, ".conf") && regular(path, e) {
				paths[e.Name()] = path
			}
		}
	}
	var files []string
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		files = append(files, paths[name])
	}
	return files, nil
}

// regular reports whether an entry is a file, or a link to one.
func regular(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.Type().IsRegular()
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// dropInDirs are the directories, those first whose files later ones hide.
func (p places) dropInDirs() []string {
	var dirs []string
	for _, d := range []string{p.vendor, p.admin} {
		dirs = append(dirs, filepath.Join(d, "registries.conf.d"))
		if p.uid == 0 {
			dirs = append(dirs, filepath.Join(d, "registries.rootful.conf.d"))
		} else {
			rootless := filepath.Join(d, "registries.rootless.conf.d")
			dirs = append(dirs, rootless, filepath.Join(rootless, strconv.Itoa(p.uid)))
		}
	}
	if p.user != "" {
		dirs = append(dirs, filepath.Join(p.user, "registries.conf.d"))
	}
	return dirs
}
