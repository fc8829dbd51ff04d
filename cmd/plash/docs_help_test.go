package main

import (
	"strings"
	"testing"
)

// helpPreparations are what there is when the examples of commands' helps are run, besides an image
// as container 1, a layer on it as container 2, and another one on that as container 3.
var helpPreparations = map[string]string{
	"add-layer":     "mkdir root /srv/debian-root; touch root/file /srv/debian-root/file",
	"build":         exampleFile,
	"completion":    `mkdir -p .config/fish/completions; fpath=(none "$PWD")`, // zsh counts from 1
	"exec":          exampleFile,
	"export-docker": noEngine,
	"import":        "curl -s $PLASH_LXC_SERVER/rootfs.tar.xz | xz -d | gzip -1 >rootfs.tar.gz; plash-export-docker 2 docker-archive:image.tar",
	"import-docker": noEngine + `; plash-push 2 registry.example.org/library/debian:bookworm; plash-export-docker 2 oci:layout:v1
		umoci config --image layout:v1 --architecture arm64
		docker() { plash-export-docker 3 docker-archive:/dev/stdout:debian:latest; }`,
	"import-tar": "curl -s $PLASH_LXC_SERVER/rootfs.tar.xz >rootfs.tar.xz; mkdir /srv/root; touch /srv/root/file",
	"map":        "plash-map web 2",
	"mount":      "mkdir up work",
	"rm":         "plash-map web 2",
	"run":        "mkdir /srv/dir",
	"umount":     "plash-mount 2 /mnt",
}

// noEngine leaves out what is done with a Docker engine: it is for the tests of round trips.
const noEngine = `plash-export-docker() { case $* in *docker-archive:*|*oci:*) command plash-export-docker "$@"; esac; }; export DOCKER_HOST=unix://$PWD/none CONTAINER_HOST=unix://$PWD/none`

const exampleFile = `printf '%s\n' '#!/usr/bin/env plash-exec' --image alpine --entrypoint /bin/echo >build.plash; chmod 755 build.plash`

// TestHelpExamples runs each example of each command's help. It is run as it stands, with
// an image server for https://example.org, and must not fail.
func TestHelpExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages in a Debian root filesystem")
	}
	server := serveDocs(t)
	for _, e := range commands() {
		t.Run(e.name, func(t *testing.T) {
			s := newSession(t, server)
			var script strings.Builder
			script.WriteString("for dir in /srv /mnt; do mount -t tmpfs none $dir || exit; done\n" +
				"plash-build --image alpine --run 'touch /file' --layer --run 'touch /file2' || exit\n" +
				server.real(helpPreparations[e.name]) + "\nprintf '" + outputMark + "%s\\n' $?\n")
			lines := []string{"(preparations)"}
			for line := range strings.SplitSeq(newCommand(e.name).example, "\n") {
				lines = append(lines, line)
				script.WriteString(server.real(line) + "\nprintf '" + outputMark + "%s\\n' $?\n")
			}
			outputs := s.shell(script.String())
			for i, line := range lines {
				if i >= len(outputs) {
					t.Fatalf("%s: the shell did not come here", line)
				}
				if output, code, _ := strings.Cut(outputs[i], outputMark); code != "0" {
					t.Errorf("%s: exit code %s:\n%s", line, code, output)
				}
			}
		})
	}
}
