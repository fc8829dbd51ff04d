// Package share gives a container what it has of the host: [Parse] turns a list of paths and
// of [Groups] into [Bind]s, [Open] and [Mount] mount them in the container, and [Supply] puts
// something in their place where nothing can be mounted.
//
// Invariants:
//   - Paths inside a container are resolved inside it: an absolute symbolic link or a "..",
//     whoever made it, never leads to the host.
//   - Nothing is made in a directory that the host shares.
//   - What is shared by default and has no place in an image, or is not on the host, is left out; what
//     was asked for and cannot be shared is an error.
//   - Every descriptor opened here is close-on-exec.
//
// It mounts in the mount namespace of the calling thread: to have a private one, and a root to
// mount in, is for the caller. It keeps nothing from being written to what is shared.
package share

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Bind is a path of the host that a container shares, at the same place. It goes as JSON from one
// process of plash to another.
type Bind struct {
	Path     string // absolute and clean
	Optional bool   // left out where the host does not have it
	From     string `json:",omitempty"` // what is bound there, if it is not the same path of the host
}

// HostPath is the path on the host.
func (b Bind) HostPath() string {
	if b.From != "" {
		return b.From
	}
	return b.Path
}

// Covers tells whether a path of the container lies in what is shared.
func (b Bind) Covers(path string) bool { return within(path, b.Path) }

// LeaveOut tells the user that the container does without.
func (b Bind) LeaveOut(err error) {
	fmt.Fprintf(os.Stderr, "plash: warning: %s is not shared with the container: %v\n", b.Path, err)
}

// Groups are the names that a list of shared paths may contain, with what
// they stand for; "~" is the home directory of the calling user. What the host
// lacks of a group is left out.
var Groups = map[string][]string{
	"default": {"/proc", "/sys", "/dev", "/tmp", "/home", "~", "/etc/resolv.conf"},
	"host":    {"/tmp", "/home"},
	"home":    {"/home", "~"},
	"proc":    {"/proc"},
	"sys":     {"/sys"},
	"dev":     {"/dev"},
	"tmp":     {"/tmp"},
	"cgroup":  {"/sys/fs/cgroup"},
	"resolv":  {"/etc/resolv.conf"},
}

// Parse turns a list of paths and names of groups into what is to be
// bound, parents first. Empty elements are ignored; home may be "".
func Parse(list []string, home string) ([]Bind, error) {
	var binds []Bind
	for _, item := range list {
		switch {
		case item == "":
		case strings.Contains(item, "/"):
			path, err := filepath.Abs(item)
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", item, err)
			}
			if path == "/" {
				return nil, errors.New("mount /: the root itself cannot be shared")
			}
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("mount %s: %w", item, underlying(err))
			}
			binds = append(binds, Bind{Path: path})
		case Groups[item] != nil:
			for _, path := range Groups[item] {
				if path == "~" {
					path = home
				}
				if path = filepath.Clean(path); filepath.IsAbs(path) && path != "/" {
					binds = append(binds, Bind{Path: path, Optional: true})
				}
			}
		default:
			return nil, &groupError{fmt.Errorf("mount %s: neither a path nor a known group", item)}
		}
	}
	return withoutNested(binds), nil
}

// A groupError is about a group that there is not.
type groupError struct{ error }

func (e *groupError) Unwrap() error { return e.error }

// Hint says which groups there are.
func (e *groupError) Hint() string {
	return "the groups are " + strings.Join(slices.Sorted(maps.Keys(Groups)), ", ")
}

// withoutNested drops what is shared already because something above it is, and
// sorts parents first.
func withoutNested(binds []Bind) []Bind {
	slices.SortStableFunc(binds, func(a, b Bind) int { return strings.Compare(a.Path, b.Path) })
	var kept []Bind
	for _, b := range binds {
		nested := slices.ContainsFunc(kept, func(above Bind) bool {
			return within(b.Path, above.Path) && (b.Path == above.Path || within(resolved(b.Path), resolved(above.Path)))
		})
		if !nested {
			kept = append(kept, b)
		}
	}
	return kept
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// resolved is path without symbolic links: a home below /home that is a link to
// elsewhere is not shared with /home.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// underlying is the error without the path that package os repeats in it.
func underlying(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
