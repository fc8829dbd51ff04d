package runtime

import (
	"slices"
	"strings"
)

// lookupEnv finds a variable; of several of one name the first, as getenv(3).
func lookupEnv(env []string, name string) (string, bool) {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// setEnv gives a variable a value, in a new slice.
func setEnv(env []string, name, value string) []string {
	return append(unsetEnv(env, name), name+"="+value)
}

// unsetEnv leaves a variable out, in a new slice.
func unsetEnv(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}

// withVars adds variables that an environment does not have, in a new slice.
func withVars(env, more []string) []string {
	all := slices.Clone(env)
	for _, v := range more {
		name, _, _ := strings.Cut(v, "=")
		if _, set := lookupEnv(env, name); !set {
			all = append(all, v)
		}
	}
	return all
}
