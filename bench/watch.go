package main

import (
	"os"
	"path/filepath"
)

// benchWatch measures what --watch costs on a large tree: the image's, unpacked. The caches are
// warm, as they are when one builds again and again.
func benchWatch(b *bench) error {
	tree := filepath.Join(b.dir, "watched")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := b.command(nil, "tar", "-x", "-C", tree, "-f", b.tar); err != nil {
		return err
	}
	shell := func(script string) func() error {
		return func() error { return b.command(nil, "sh", "-c", script, "sh", tree) }
	}
	one := &contender{name: "find | sha256sum", do: shell(`cd "$1" && find . -type f -print0 | xargs -0 sha256sum | sort | sha256sum`)}
	cs := []*contender{
		one,
		{name: "find | sha256sum, a process for each CPU", do: shell(`cd "$1" && find . -type f -print0 | xargs -0 -P "$(nproc)" -n 500 sha256sum | sort | sha256sum`)},
		{name: "tar | sha256sum", do: shell(`tar -c -C "$1" . | sha256sum`)},
		{name: "plash getscript --watch", do: func() error {
			return b.command([]string{"PLASH_DATA=" + filepath.Join(b.dir, "store")}, b.plash, "getscript", "--watch", tree, "--run", "true")
		}},
	}
	if err := b.race(cs); err != nil {
		return err
	}
	if err := b.report(timesTable("Whether a large tree has changed", cs, one)); err != nil {
		return err
	}
	return os.RemoveAll(tree)
}
