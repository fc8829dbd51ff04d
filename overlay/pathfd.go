package overlay

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pathNames turns paths into names that can stand in a mount option, without
// the escaping that differs between kernels: overlayfs takes backslashes in
// upperdir and workdir as escapes, commas end an option for filesystems that
// have no options parser of the new kind (overlayfs before Linux 6.5), and
// fsconfig(2) takes 255 bytes. A path that is not plain is named through a
// descriptor, with as much of its end as is plain: that is what mount tables
// show, and what scratch directories in use are recognised by.
type pathNames struct {
	fds []int
}

func (p *pathNames) close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	p.fds = nil
}

// name gives a name of path in which no byte of special occurs and that is no
// longer than maxString. It is valid until close, for this process.
func (p *pathNames) name(path, special string) (string, error) {
	if len(path) <= maxString && !strings.ContainsAny(path, special) {
		return path, nil
	}
	const longest = maxString - len("/proc/self/fd/0000000/")
	cut := len(path)
	for {
		i := strings.LastIndexByte(path[:cut], '/')
		if i < 0 || len(path)-i-1 > longest || strings.ContainsAny(path[i:cut], special) {
			break
		}
		cut = i
	}
	base, err := p.byFD(path[:cut])
	return base + path[cut:], err
}

// byFD names a path by a descriptor alone.
func (p *pathNames) byFD(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	p.fds = append(p.fds, fd)
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}
