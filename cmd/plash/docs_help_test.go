package main

import (
	"strings"
	"testing"
)

// helpPreparations are what there is when the examples of commands' helps are run, besides an image
// as container 1, a layer on it as container 2, and another one on that as container 3.
var helpPreparations = map[string]string{
	"add-layer":  "mkdir root /srv/debian-root; touch root/file /srv/debian-root/file",
	"build":      exampleFile,
	"completion": `mkdir -p .config/fish/completions; fpath=(none "$PWD")`, // zsh counts from 1
	"exec":       exampleFile,
	"import": "curl -s $PLASH_LXC_SERVER/rootfs.tar.xz | xz -d | gzip -1 >rootfs.tar.gz; " +
		"plash-export-docker 2 docker-archive:./image.tar:app:1.0",
	"import-tar": "curl -s $PLASH_LXC_SERVER/rootfs.tar.xz >rootfs.tar.xz; mkdir /srv/root; touch /srv/root/file",
	"map":        "plash-map web 2",
	"mount":      "mkdir up work",
	"rm":         "plash-map web 2",
	"run":        "mkdir /srv/dir",
	"umount":     "plash-mount 2 /mnt",
}

// helpNotRun are the examples that want what is not there, and why. Tests of their own have it.
var helpNotRun = map[string]string{
	"plash-import-docker debian:bookworm":                                    "Docker's registry",
	"plash-import-docker --platform linux/arm64 oci:./layout:v1":             "an image for several machines",
	"docker save debian | plash-import-docker docker-archive:/dev/stdin":     "a Docker engine",
	"plash-export-docker -i alpine -x 'apk add curl' -- curl:latest":         "a Docker engine",
	"plash-push 2 localhost:5000/app:1.0":                                    "a registry",
	"plash-push -i alpine -x 'apk add curl' -- registry.example.org/me/curl": "a registry",
}

const exampleFile = `printf '%s\n' '#!/usr/bin/env plash-exec' --image alpine --entrypoint /bin/echo >build.plash; chmod 755 build.plash`

// TestHelpExamples runs each example of each command's help. It is run as it stands, with
// an image server for https://example.org, and must not fail.
func TestHelpExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages in a Debian root filesystem")
	}
	server := serveDocs(t)
	shown := map[string]bool{}
	for _, e := range commands() {
		for line := range strings.SplitSeq(newCommand(e.name).example, "\n") {
			shown[line] = true
		}
	}
	for line := range helpNotRun {
		if !shown[line] {
			t.Errorf("%s: no command has this example", line)
		}
	}
	for _, e := range commands() {
		t.Run(e.name, func(t *testing.T) {
			s := newSession(t, server)
			var script strings.Builder
			script.WriteString("sudo() { \"$@\"; }\nfor dir in /srv /mnt; do mount -t tmpfs none $dir || exit; done\n" +
				"plash-build --image alpine --run 'touch /file' --layer --run 'touch /file2' || exit\n" +
				helpPreparations[e.name] + "\nprintf '" + outputMark + "%s\\n' $?\n")
			lines := []string{"(preparations)"}
			for line := range strings.SplitSeq(newCommand(e.name).example, "\n") {
				if helpNotRun[line] != "" {
					continue
				}
				lines = append(lines, line)
				script.WriteString(strings.ReplaceAll(line, exampleSite, server.server) + "\nprintf '" + outputMark + "%s\\n' $?\n")
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
