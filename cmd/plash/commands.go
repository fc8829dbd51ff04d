package main

import (
	"strings"

	"github.com/ihucos/plash/spelling"
)

// topUsage is the usage line of the program as a whole.
const topUsage = "usage: plash NAME [ARG…]"

// commandEntry is what is known of a command without constructing it.
type commandEntry struct {
	name    string
	group   string // heading in the list of commands
	summary string // a line for that list
	new     func() *command
}

// commands is the table of all commands in the order of the list that
// plash-help prints. It is a function, so that it costs nothing at start unless
// it is asked for.
func commands() []commandEntry {
	return []commandEntry{
		{"build", "Building", "build a container out of actions, print its id", newBuild},
		{"getscript", "Building", "print the shell script that actions stand for", newGetscript},
		{"create", "Building", "run a command and keep what it changed as a new container", newCreate},
		{"add-layer", "Building", "put the content of a directory as a layer on a container", newAddLayer},

		{"run", "Running", "run a command in a container", newRun},
		{"exec", "Running", "build a Plashfile and run its entrypoint", newExec},
		{"runc", "Running", "run a command in a container, isolated by runc or crun", newRunc},
		{"mount", "Running", "mount a container at a directory", newMount},
		{"umount", "Running", "take a mount away", newUmount},
		{"with-mount", "Running", "run a command of the host in a mounted container", newWithMount},
		{"docker", "Running", "the Docker client out of an image", newDocker},
		{"docker-daemon", "Running", "the Docker engine out of an image", newDockerDaemon},

		{"import", "Images in and out", "import an image by name, print its id", newImport},
		{"import-tar", "Images in and out", "import a root filesystem from a tar", newImportTar},
		{"import-url", "Images in and out", "import a root filesystem from a tar at a URL", newImportURL},
		{"import-lxc", "Images in and out", "import an image of the LXC image server", newImportLXC},
		{"import-docker", "Images in and out", "import an image of Docker or OCI", newImportDocker},
		{"export-tar", "Images in and out", "write a container's root filesystem as a tar", newExportTar},
		{"export-docker", "Images in and out", "give a container to other tools as an image", newExportDocker},
		{"export-dir", "Images in and out", "make a container's root filesystem in a directory", newExportDir},
		{"export-img", "Images in and out", "write a container's root filesystem as an ext4 image", newExportImg},
		{"export-erofs", "Images in and out", "write a container's root filesystem as an EROFS image", newExportEROFS},
		{"export-squashfs", "Images in and out", "write a container's root filesystem as a squashfs image", newExportSquashfs},
		{"push", "Images in and out", "send a container as an image to a registry", newPush},

		{"list", "The store", "list the containers", newList},
		{"map", "The store", "get, set or delete a name for a container", newMap},
		{"parent", "The store", "print the parent of a container", newParent},
		{"nodepath", "The store", "print the directory that records a container", newNodepath},
		{"diff", "The store", "list the paths that differ from the parent's", newDiff},
		{"rm", "The store", "remove containers with their descendants", newRm},
		{"init", "The store", "make the store", newInit},
		{"data", "The store", "print the path of the store", newData},
		{"clean", "The store", "free what no one needs", newClean},
		{"shrink", "The store", "remove the least recently used half of the containers", newShrink},
		{"fsck", "The store", "check the store, and repair it", newFsck},
		{"purge", "The store", "remove everything", newPurge},

		{"help", "About plash", "list the commands, explain a command", newHelp},
		{"doctor", "About plash", "say what works on this host, and how to get more", newDoctor},
		{"version", "About plash", "print the version", newVersion},
		{"completion", "About plash", "print a completion script for a shell", newCompletion},
	}
}

// newCommand constructs the command of that name, nil if there is none.
func newCommand(name string) *command {
	for _, e := range commands() {
		if e.name == name {
			c := e.new()
			c.name = name
			return c
		}
	}
	return nil
}

// unknownCommand is the error for a name that no command has.
func unknownCommand(name string) error {
	e := &usageError{what: "unknown command: " + name, line: topUsage}
	if near := nearest(name); near != "" {
		e.hint = "did you mean `plash " + near + "`?"
	} else {
		e.hint = "`plash help` lists the commands"
	}
	return e
}

// nearest gives the command whose name is most like a mistyped one, "" if none
// is much alike.
func nearest(name string) string {
	best, least := "", min(3, len(name)) // three slips are another word
	for _, e := range commands() {
		if len(name) > 2 && strings.HasPrefix(e.name, name) {
			return e.name
		}
		if d := spelling.Distance(name, e.name); d < least {
			best, least = e.name, d
		}
	}
	return best
}
