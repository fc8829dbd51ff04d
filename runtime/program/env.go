package program

import (
	"slices"
	"strings"
)

// LookupEnv finds a variable; of several of one name the first, as getenv(3).
func LookupEnv(env []string, name string) (string, bool) {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// SetEnv gives a variable a value, in a new slice.
func SetEnv(env []string, name, value string) []string {
	return append(UnsetEnv(env, name), name+"="+value)
}

// UnsetEnv leaves a variable out, in a new slice.
func UnsetEnv(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}

// FillEnv adds variables that an environment does not have, in a new slice.
func FillEnv(env, more []string) []string {
	all := slices.Clone(env)
	for _, v := range more {
		name, _, _ := strings.Cut(v, "=")
		if _, set := LookupEnv(env, name); !set {
			all = append(all, v)
		}
	}
	return all
}
