package enginetest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// groupFor names the group of control groups of the containers of what has this directory.
func groupFor(dir string) string {
	h := fnv.New32()
	_, _ = h.Write([]byte(dir)) // it has no errors
	return fmt.Sprintf("plash-test-%d-%08x", os.Getpid(), h.Sum32())
}

// removeGroups removes such a group, in whatever hierarchies there are, and the groups in it.
func removeGroups(name string) (err error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, in := range []string{"*", ""} {
			groups, globErr := filepath.Glob(filepath.Join(root, name, in))
			err = errors.Join(err, globErr)
			for _, group := range groups {
				if fi, e := os.Lstat(group); e != nil || !fi.IsDir() { // some are one by two names
					continue
				}
				if e := os.Remove(group); e != nil && !errors.Is(e, os.ErrNotExist) {
					err = errors.Join(err, e)
				}
			}
		}
	}
	return err
}
