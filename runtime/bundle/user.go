package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/share"
)

// A User is who a container's command runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // further ones
	Home     string
}

// maxAccounts is how long a file with accounts may be, in bytes.
const maxAccounts = 16 << 20

// LookUp finds the user that an image names in the files of the image, whose root is an open
// directory.
func LookUp(root int, name string) (User, error) {
	passwd, err := readAccounts(root, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := readAccounts(root, "/etc/group")
	if err != nil {
		return User{}, err
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return User{}, fmt.Errorf("user %q of the image: %w", name, err)
	}
	who := User{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	for _, g := range u.Sgids {
		who.Groups = append(who.Groups, uint32(g))
	}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id > math.MaxInt32 { // as runc has it
			return User{}, fmt.Errorf("user %q of the image: %d is no id", name, id)
		}
	}
	return who, nil
}

// readAccounts reads a file of the image, where anything may be at its place. One that is
// missing is empty.
func readAccounts(root int, path string) ([]byte, error) {
	// O_NONBLOCK: opening a named pipe does not hang.
	fd, err := share.OpenInside(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = errors.New("not a regular file")
	case fi.Size() > maxAccounts:
		err = fmt.Errorf("%d bytes, at most %d are read", fi.Size(), maxAccounts)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts))
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", path, err)
	}
	return b, nil
}
