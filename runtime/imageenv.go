package runtime

import (
	"slices"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// A program in a container has the variables of its caller, and those of the image that the
// caller does not have. PATH is not put together of both; but a command that is in none of the
// directories of the caller's PATH is looked for in those of the image's.

// notTaken are variables that an image does not get set.
var notTaken = []string{
	"PWD", // says where the caller is
	scriptVar,
	pathVar,
}

// imageVars are the variables of an image.
func imageVars(im container.ImageConfig) []string {
	return slices.DeleteFunc(slices.Clone(im.Env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(notTaken, name)
	})
}

// imagePath is the PATH of an image; "" if it has none.
func imagePath(vars []string) string {
	path, _ := program.LookupEnv(vars, "PATH")
	return path
}

// adopt gives the command of a step what the image says. A script has the variables of the
// image before its own, as a RUN of a Dockerfile has, unless it was given others.
func (s *step) adopt(im container.ImageConfig) {
	c, vars := &s.config, imageVars(im)
	switch {
	case s.options.Script == "":
		c.Env, c.Also = program.FillEnv(c.Env, vars), imagePath(vars)
	case s.options.Env == nil:
		c.Env = program.FillEnv(vars, c.Env)
		if path := imagePath(vars); path != "" {
			c.keepPath(path)
		}
	}
}

// pathVar is the environment variable that hands the PATH of an image to a step's shell.
const pathVar = "PLASH_PATH"

// keepPath has a script begin with a PATH: a login shell's profile may know another one.
func (c *initConfig) keepPath(path string) {
	const set = "PATH=$" + pathVar + "; unset " + pathVar + "; "
	c.Env = append(c.Env, pathVar+"="+path)
	if i := slices.Index(c.Argv, "-c"); i >= 0 {
		c.Argv = slices.Clone(c.Argv)
		c.Argv[i+1] = set + c.Argv[i+1]
		return
	}
	// Its name follows, or is there already.
	c.Argv = slices.Insert(slices.Clone(c.Argv), 2, "-c", set+`. "$0"`)
}
