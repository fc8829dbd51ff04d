package overlay

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/mountfd"
)

// bindLater gives a read-only bind mount of a directory that mount(2) makes
// when it is attached: for kernels before Linux 5.12.
func bindLater(dir string) *Mount {
	return &Mount{Mount: mountfd.Later(func(target string) error {
		if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
			return classify(fmt.Errorf("bind mount %s to %s: %w", dir, target, err))
		}
		// A bind mount is made read-only, and leaves its peer group, afterwards.
		err := unix.Mount("", target, "", unix.MS_PRIVATE, "")
		if err == nil {
			err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			err = classify(fmt.Errorf("make bind mount at %s read-only: %w", target, err))
			return errors.Join(err, unix.Unmount(target, unix.MNT_DETACH))
		}
		return nil
	})}
}

// overlayLater gives an overlayfs of directories, top first, that mount(2) makes
// when it is attached: for kernels before Linux 5.2.
func overlayLater(dirs []string, o *Options) *Mount {
	dirs = append(dirs[:len(dirs):len(dirs)], o.Below...)
	return &Mount{Mount: mountfd.Later(func(target string) error {
		err := mountOverlay2(dirs, o, target, overlayOptions(o, xinoOf(dirs, o)), o.Volatile)
		if errors.Is(err, unix.EINVAL) {
			// Older kernels know fewer options. None of these asks for anything
			// that such a kernel would do otherwise.
			err = mountOverlay2(dirs, o, target, nil, false)
		}
		if err != nil {
			return classify(fmt.Errorf("mount overlayfs of %d layers at %s: %w", len(dirs), target, err))
		}
		return nil
	})}
}

func mountOverlay2(dirs []string, o *Options, target string, options [][2]string, volatile bool) error {
	var names pathNames
	defer names.close()
	if o.Upper == "" && len(dirs) == 1 {
		return errors.New("overlayfs without an upper directory wants two layers")
	}
	lower, err := lowerNames(&names, dirs)
	if err != nil {
		return err
	}
	data := []string{"lowerdir=" + strings.Join(lower, ":")}
	if o.Upper != "" {
		upper, err := names.name(o.Upper, specialInOptions)
		if err != nil {
			return err
		}
		work, err := names.name(o.Work, specialInOptions)
		if err != nil {
			return err
		}
		data = append(data, "upperdir="+upper, "workdir="+work)
	}
	source := "overlay"
	for _, kv := range options {
		if kv[0] == "source" {
			source = kv[1]
			continue
		}
		data = append(data, strings.TrimSuffix(kv[0]+"="+kv[1], "="))
	}
	if volatile && o.Upper != "" {
		data = append(data, "volatile")
	}
	all := strings.Join(data, ",")
	if len(all) >= unix.Getpagesize() {
		return fmt.Errorf("%w: mount(2) takes options of %d bytes at most, %d layers need %d",
			ErrUnsupported, unix.Getpagesize()-1, len(dirs), len(all))
	}
	var flags uintptr
	if o.Upper == "" {
		flags = unix.MS_RDONLY
	}
	return unix.Mount(source, target, "overlay", flags, all)
}

// lowerNames names directories below a descriptor of the directory two levels
// up, where they have it in common: what mount tables show then still ends in the
// name of the layer, and is short.
func lowerNames(names *pathNames, dirs []string) ([]string, error) {
	bases := map[string]string{}
	out := make([]string, len(dirs))
	for i, dir := range dirs {
		up := filepath.Dir(filepath.Dir(dir))
		rel := strings.TrimPrefix(dir, up)
		if strings.ContainsAny(rel, specialInOptions) || up == "/" {
			name, err := names.name(dir, specialInOptions)
			if err != nil {
				return nil, err
			}
			out[i] = name
			continue
		}
		base, ok := bases[up]
		if !ok {
			var err error
			if base, err = names.byFD(up); err != nil {
				return nil, err
			}
			bases[up] = base
		}
		out[i] = base + rel
	}
	return out, nil
}
