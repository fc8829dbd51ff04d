package matrix

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/runtime/hosttest"
)

// accountPackage makes a user and a group, and gives files to them, one of them setuid.
const accountPackage = "dbus"

// TestBuildsAlike has a package installed in the three ways of building: by root, by a user who
// has the ids of an image's users, and by one who has only his own. The layers are the
// same but for times.
func TestBuildsAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("installs a package three times")
	}
	h := newHouse(t)
	debian, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	h.put(imageFile, debian)
	var want []string
	for i, way := range []struct{ name, user string }{
		{name: "root"},
		{name: "user with subordinate ids", user: user},
		{name: "user without", user: bare},
	} {
		got, err := h.room(t, i, way.user).layerOf(way.user, accountPackage)
		if err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		if want == nil {
			want = got
			if !slices.ContainsFunc(want, func(line string) bool { return strings.HasPrefix(line, "-rwsr-xr-- 0/") }) {
				t.Errorf("%s: no setuid program of a group's", accountPackage)
			}
		}
		for _, line := range missingFrom(got, want) {
			t.Errorf("%s: not in root's layer: %s", way.name, line)
		}
		for _, line := range missingFrom(want, got) {
			t.Errorf("%s: only in root's layer: %s", way.name, line)
		}
	}
}

// layerOf builds a layer with a package and lists it.
func (r *room) layerOf(user, pkg string) (lines []string, err error) {
	script := `set -e; cd "$ROOM"
		./plash build --image "$(./plash import-tar "$IMAGE")" --apt "$1" >id 2>log || { tail -n 5 log >&2; exit 1; }
		./plash nodepath "$(cat id)"`
	cmd, err := r.on(hosttest.Host{User: user}, "sh", "-c", script, "-", pkg)
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("build: %w: %s", err, said.String())
	}
	node := strings.TrimSpace(string(out))
	b, err := os.ReadFile(filepath.Join(node, "record.json"))
	if err != nil {
		return nil, err
	}
	var record container.Record
	if err := json.Unmarshal(b, &record); err != nil {
		return nil, err
	}
	s, err := cas.Open(r.env["PLASH_DATA"])
	if err != nil {
		return nil, err
	}
	list := exec.Command("tar", "-tv", "--numeric-owner", "-f", s.BlobPath(record.Layer))
	if out, err = list.Output(); err != nil {
		return nil, fmt.Errorf("%s: %w", list, err)
	}
	for line := range strings.Lines(string(out)) {
		lines = append(lines, withoutTime(line))
	}
	slices.Sort(lines)
	return lines, nil
}

// withoutTime drops from a line of tar -tv what differs from build to build: the time of the entry, and
// the size of what has times in it.
func withoutTime(line string) string {
	f := strings.Fields(line) // mode, owner, size, date, time, name
	if len(f) < 6 {
		return line
	}
	name := strings.Join(f[5:], " ")
	if strings.Contains(name, "var/log/") || strings.Contains(name, "var/cache/") {
		f[2] = "-"
	}
	return strings.Join([]string{f[0], f[1], f[2], strings.TrimPrefix(name, "./")}, " ")
}

// missingFrom lists what is in lines and not in others, both sorted.
func missingFrom(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		_, found := slices.BinarySearch(others, line)
		return found
	})
}
