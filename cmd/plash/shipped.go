package main

import (
	"context"
	"embed"
	"fmt"

	"github.com/ihucos/plash/build"
)

// Some commands are Plashfiles. They are files of the program.

//go:embed plashfiles
var plashfiles embed.FS

type shippedOptions struct{ args []string }

// newShipped makes a command of a Plashfile.
func newShipped(name, long, example string) *command {
	return &command{
		execs:    true,
		builds:   true,
		operands: grammar{"[ARG…]"},
		long:     long,
		example:  example,
		run: func(ctx context.Context, a arguments, s streams) error {
			return runShipped(ctx, name, shippedOptions{args: a.operands}, s)
		},
	}
}

func runShipped(ctx context.Context, name string, o shippedOptions, s streams) error {
	text, err := plashfiles.ReadFile("plashfiles/" + name)
	if err != nil {
		return fmt.Errorf("read the Plashfile of the command: %w", err)
	}
	plan, header, err := build.ParseText(binary+"-"+name, string(text), s.in)
	if err != nil {
		return actionsError(err)
	}
	return execPlan(ctx, name, binary+"-"+name, plan, header, o.args, s)
}

func newDocker() *command {
	return newShipped("docker", `
Runs the Docker client out of an Alpine image, with ARG… as its arguments. The engine
that it talks to is that of plash-docker-daemon, or the one whose socket
PLASH_DOCKER_SOCKET names.`,
		"plash-docker ps\nPLASH_DOCKER_SOCKET=/srv/docker.sock plash-docker version")
}

func newDockerDaemon() *command {
	return newShipped("docker-daemon", `
Runs the Docker engine out of an Alpine image, with ARG… as further arguments of
dockerd. It listens on the socket that PLASH_DOCKER_SOCKET names, which must be in a
directory that containers share, or else on /tmp/plash-docker-wrap/docker.sock, which
only root can reach. What it stores is gone when it ends, unless ARG… says
--data-root with a shared directory.`,
		"plash-docker-daemon\nplash-docker-daemon --data-root /home/docker")
}
