package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// plainUser is a user and a group without an account, which none is needed for.
const plainUser = 61234

// asUser is the beginning of a command line that a plain user runs.
func asUser(more ...string) []string {
	id := strconv.Itoa(plainUser)
	return append([]string{"--reuid", id, "--regid", id, "--clear-groups", "--inh-caps", "-all"}, more...)
}

// benchUserRun measures the start of a command, warm, for a plain user: with our FUSE
// filesystem, and unpacked.
func (b *bench) benchUserRun() error {
	for _, program := range []string{"bwrap", "setpriv"} {
		if !have(program) {
			return nil // nothing to compare with
		}
	}
	dir, err := os.MkdirTemp("", "plash-bench-user")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, plainUser, plainUser); err != nil {
		return err
	}
	plash, tree := filepath.Join(dir, "plash"), filepath.Join(dir, "tree")
	if err := b.command(nil, "install", b.plash, plash); err != nil {
		return err
	}
	env := []string{"HOME=" + dir, "PLASH_DATA=" + filepath.Join(dir, "store")}
	// The image may lie where the user may not go.
	reading := func(command ...string) []string {
		return append([]string{"-c", `image=$1; shift; exec setpriv "$@" <"$image"`, "sh", b.tar}, asUser(command...)...)
	}
	unpack := `mkdir "$1" && exec tar -x --no-same-owner --exclude './dev/*' -C "$1"`
	if err := b.command(env, "sh", reading("sh", "-c", unpack, "sh", tree)...); err != nil {
		return err
	}
	id, err := b.output(env, "sh", reading(plash, "import-tar", "-")...)
	if err != nil {
		return err
	}
	user := func(backend, command string) func() error {
		loop := fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s || exit 1; i=$((i+1)); done", times, command)
		// A plan is for one backend, and made by a run with it.
		loop = command + " && " + loop
		return func() error {
			return b.command(append(env, "PLASH_BACKEND="+backend), "setpriv", asUser("sh", "-c", loop)...)
		}
	}
	bwrap := &contender{name: "bwrap, as a user", do: user("", fmt.Sprintf("bwrap --bind %s / --dev /dev --proc /proc true", tree))}
	run := fmt.Sprintf("%s run %s true", plash, id)
	cs := []*contender{
		bwrap,
		{name: "plash run ID true, as a user, by FUSE", do: user("fuse", run)},
		{name: "plash run ID true, as a user, unpacked", do: user("unpack", run)},
	}
	if err := b.race(cs); err != nil {
		return err
	}
	perRun(cs)
	return b.report(timesTable("Start of a command, warm, as a plain user", cs, bwrap))
}
