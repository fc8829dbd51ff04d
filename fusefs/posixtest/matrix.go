package posixtest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// kinds of things that are renamed over one another.
var kinds = []string{"nothing", "file", "large file", "hard link", "symlink", "dangling symlink", "link to a directory", "fifo", "device", "empty directory", "full directory"}

// renameMatrix renames everything over everything, in each of the ways.
func renameMatrix() (cases []testCase) {
	for _, from := range kinds {
		for _, to := range kinds {
			for _, mode := range []string{"over", "not over", "with"} {
				cases = append(cases, testCase{
					name: from + " " + mode + " " + to,
					root: from == "device" || to == "device",
					make: func(e *env) {
						e.mkdir("aside")
						e.makeKind(from, "from")
						e.makeKind(to, "to")
					},
					run: func(e *env) { e.renameKinds(from, to, mode) },
				})
			}
		}
	}
	return cases
}

// makeKind makes something whose content tells which it is.
func (e *env) makeKind(kind, name string) {
	switch kind {
	case "file":
		e.write(name, name)
	case "large file":
		e.write(name, name+pattern(200*kib))
	case "hard link":
		e.write("aside/"+name, name)
		e.link("aside/"+name, name)
	case "symlink":
		e.write("aside/"+name, name)
		e.symlink("aside/"+name, name)
	case "dangling symlink":
		e.symlink("nowhere/"+name, name)
	case "link to a directory":
		e.mkdir("aside/" + name)
		e.symlink("aside/"+name, name)
	case "fifo":
		e.check(unix.Mkfifo(e.at(name), 0o640))
	case "device":
		e.check(unix.Mknod(e.at(name), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
	case "empty directory":
		e.mkdir(name)
	case "full directory":
		e.mkdir(name, name+"/"+name)
		e.write(name+"/"+name+"/file", name)
	}
}

// wantKind wants what makeKind made of that name, wherever it is now.
func (e *env) wantKind(kind, made, name string) {
	switch kind {
	case "nothing":
		e.absent(name)
	case "file":
		e.content(name, made)
	case "large file":
		e.content(name, made+pattern(200*kib))
	case "hard link":
		e.content(name, made)
		equal(e, "inode", e.stat(name).Ino, e.stat("aside/"+made).Ino)
		equal(e, "links", e.stat(name).Nlink, 2)
	case "symlink", "link to a directory":
		e.target(name, "aside/"+made)
	case "dangling symlink":
		e.target(name, "nowhere/"+made)
	case "fifo":
		equal(e, "mode", e.stat(name).Mode, unix.S_IFIFO|0o640)
	case "device":
		st := e.stat(name)
		equal(e, "mode", st.Mode, unix.S_IFCHR|0o640)
		equal(e, "device", st.Rdev, unix.Mkdev(1, 3))
	case "empty directory":
		e.names(name)
	case "full directory":
		e.names(name, made)
		e.content(name+"/"+made+"/file", made)
	}
}

func isDir(kind string) bool { return kind == "empty directory" || kind == "full directory" }

func (e *env) renameKinds(from, to, mode string) {
	var want []error
	flags := map[string]uint{"over": 0, "not over": unix.RENAME_NOREPLACE, "with": unix.RENAME_EXCHANGE}[mode]
	switch {
	case from == "nothing":
		want = []error{unix.ENOENT}
	case mode == "not over" && to != "nothing":
		want = []error{unix.EEXIST}
	case mode == "with" && to == "nothing":
		want = []error{unix.ENOENT}
	case mode == "over" && to != "nothing" && isDir(from) != isDir(to):
		want = []error{unix.ENOTDIR}
		if isDir(to) {
			want = []error{unix.EISDIR}
		}
	case mode == "over" && isDir(from) && to == "full directory":
		want = []error{unix.ENOTEMPTY, unix.EEXIST}
	}
	moved := isDir(from) || mode == "with" && isDir(to)
	if moved && e.lower && e.o.MovesNoLowerDirs && (want == nil || want[0] == unix.ENOTEMPTY) {
		want = append(want, unix.EXDEV)
	}
	err := e.rename2("from", "to", flags)
	if want != nil {
		e.fails("rename", err, want...)
		e.wantKind(from, "from", "from")
		e.wantKind(to, "to", "to")
		return
	}
	e.check(err)
	e.wantKind(from, "from", "to")
	if mode == "with" {
		e.wantKind(to, "to", "from")
	} else {
		e.absent("from")
	}
	list := []string{"aside", "to"}
	if mode == "with" {
		list = append(list, "from")
	}
	e.names(".", list...)
	// What was replaced is gone, and does not come back with the name.
	e.check(os.RemoveAll(e.at("to")))
	e.mkdir("to")
	e.names("to")
	if mode == "over" && to == "hard link" {
		equal(e, "links of what was replaced", e.stat("aside/to").Nlink, 1)
	}
	if from == "hard link" {
		equal(e, fmt.Sprintf("links after removing the %s", from), e.stat("aside/from").Nlink, 1)
	}
}
