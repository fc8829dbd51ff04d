package matrix

import (
	"fmt"
	"regexp"
	"strings"
)

// Columns of the table.
const (
	colRun     = "run"
	colBuild   = "build"
	colMount   = "mount"
	colExport  = "export"
	colBackend = "backend"
)

var (
	ourColumns  = []string{colRun, colBuild, colMount, colExport, colBackend}
	peerColumns = []string{"bwrap", "podman", "charliecloud", "proot"}
)

// works is a cell where all is well.
const works = "yes"

// unshared is the cell of runs that see nothing of the host.
const unshared = "without home, proc"

// Reasons for which plash refuses, as cells say them.
const (
	noUserNS     = "no user namespaces"
	noMounts     = "no mounts"
	noFilesystem = "no overlayfs, no FUSE"
)

// reasons tell by what plash says why it refuses, and explain that to readers of the table.
var reasons = []struct {
	name    string
	says    string // a regular expression
	explain string
}{
	{
		noUserNS, `^plash \w+: (build layer \d+ of \d+: )?no user namespaces here: `,
		"users mount in a user namespace of their own, and here the kernel or the container's filter lets them have none, nor is PRoot installed; `plash-doctor` says how to change that",
	},
	{
		noMounts, `^plash mount: mounting is not permitted here, whatever the backend: `,
		"a mount that all processes see takes root, or FUSE (`/dev/fuse` and `fusermount3`); `plash-with-mount` may do instead",
	},
	{
		noFilesystem, `no overlayfs here: .*FUSE is not available|FUSE is not available.*no overlayfs here: `,
		"nothing is there that could take what is written: `modprobe overlay`, `modprobe fuse`",
	},
}

// refusal is the cell for what plash has said.
func refusal(l line) string {
	for _, r := range reasons {
		if !regexp.MustCompile(r.says).MatchString(l.said) {
			continue
		}
		if !strings.Contains(l.said, " hint: ") {
			return "no, without a hint: " + l.said
		}
		return "no: " + r.name
	}
	return fmt.Sprintf("no, for no known reason: exit code %s: %s", l.code, l.said)
}

// wants are what the other lines about a run have as exit codes, where it runs at all.
var wants = map[string]string{"exits": "7", "dies": "143", "passes": "41", "missing": "127", "crowd": "0"}

// runCell tells what became of running commands.
func (f finding) runCell() string {
	if !f["run"].ok() {
		return refusal(f["run"])
	}
	var lacks []string
	for _, word := range []string{"uid", "home", "proc", "network"} {
		if !strings.Contains(f["run"].out, word) {
			lacks = append(lacks, word)
		}
	}
	for _, key := range []string{"exits", "dies", "passes", "missing", "crowd"} {
		if l := f[key]; l.code != wants[key] {
			lacks = append(lacks, fmt.Sprintf("%s (%s: %s%s)", key, l.code, l.out, l.said))
		}
	}
	if len(lacks) > 0 {
		return "without " + strings.Join(lacks, ", ")
	}
	return works
}

// buildCell tells whether layers are built, and with packages.
func (f finding) buildCell() string {
	switch {
	case !f["build"].ok():
		return refusal(f["build"])
	case f["built"].out != "built":
		return fmt.Sprintf("wrong: %q %s", f["built"].out, f["built"].said)
	case !f["packages"].ok():
		return refusal(f["packages"])
	case !f["packaged"].ok():
		return "packages do not run: " + f["packaged"].said
	}
	return works
}

func (f finding) mountCell() string {
	switch l := f["mount"]; {
	case !l.ok():
		return refusal(l)
	case l.out == "":
		return "empty"
	}
	return works
}

func (f finding) exportCell() string {
	if l := f["export"]; !l.ok() || l.out != "1" {
		return fmt.Sprintf("wrong: %s %q %s", l.code, l.out, l.said)
	}
	return works
}

// backendCell names the backend, or those of the tasks.
func (f finding) backendCell() (string, error) {
	b, err := f.backends()
	if err != nil {
		return "", err
	}
	var said []string
	distinct := map[string]bool{}
	for _, task := range []string{colRun, colBuild, colMount} {
		if b[task] != "" {
			said = append(said, task+": "+b[task])
			distinct[b[task]] = true
		}
	}
	switch len(distinct) {
	case 0:
		return "none", nil
	case 1:
		_, name, _ := strings.Cut(said[0], ": ")
		return name, nil
	}
	return strings.Join(said, ", "), nil
}

// cells are ours.
func (f finding) cells() (map[string]string, error) {
	backend, err := f.backendCell()
	return map[string]string{
		colRun: f.runCell(), colBuild: f.buildCell(), colMount: f.mountCell(), colExport: f.exportCell(), colBackend: backend,
	}, err
}

// leftBehind is what is wrong with how the host was left.
func (f finding) leftBehind() error {
	for _, key := range []string{"import", "left", "again", "purge"} {
		if l := f[key]; !l.ok() {
			return fmt.Errorf("%s: %s %s%s", key, l.code, l.out, l.said)
		}
	}
	return nil
}

// contradiction tells of a backend that is not the one that was used, as far as the
// root's filesystem shows.
func (f finding) contradiction() error {
	b, err := f.backends()
	if err != nil || !f["filesystem"].ok() {
		return err
	}
	shows := map[string]string{"erofs": "overlayfs", "unpack": "overlayfs", "fuse": "overlayfs", "union": "fuseblk"}
	if want, got := shows[b[colRun]], f["filesystem"].out; want != "" && got != want {
		return fmt.Errorf("plash-doctor says %s, but / is %s", b[colRun], got)
	}
	return nil
}

// peerReasons are what the peers say when they do not work, as cells say it.
var peerReasons = []struct{ says, cell string }{
	{`not installed`, "not installed"},
	{`cannot re-exec process|create new namespace|Creating new namespace|user\+mount namespaces`, "no user namespaces"},
	{`pivot_root`, "no `pivot_root`"},
	{`setting up the process`, "no ids"},
	{`[Oo]peration not permitted|Permission denied`, "not permitted"},
}

// peerCell tells what became of one of the others.
func peerCell(l line) string {
	if l.ok() {
		return works
	}
	for _, r := range peerReasons {
		if regexp.MustCompile(r.says).MatchString(l.said) {
			return "no: " + r.cell
		}
	}
	return fmt.Sprintf("no: exit code %s: %s", l.code, l.said)
}
