package overlay

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// loopDevices are read-only loop devices that this process holds open. The
// kernel frees each as soon as nothing has it open or mounted any more, also
// when the process is killed (LO_FLAGS_AUTOCLEAR).
type loopDevices []*os.File

func (l loopDevices) paths() []string {
	p := make([]string, len(l))
	for i, f := range l {
		p[i] = f.Name()
	}
	return p
}

func (l loopDevices) close() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// attachLoops gives a loop device for each of files.
func attachLoops(files []string) (loopDevices, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: get a loop device: %w", ErrUnsupported, err)
	}
	defer control.Close()
	var devices loopDevices
	for _, path := range files {
		dev, err := attachLoop(control, path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach loop device to %s: %w", path, err), devices.close())
		}
		devices = append(devices, dev)
	}
	return devices, nil
}

func attachLoop(control *os.File, path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Between the kernel naming a free device and its being configured another
	// process may take it (EBUSY), and a new one's node may take a moment.
	deadline := time.Now().Add(5 * time.Second)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		dev, err := tryLoop(control, f)
		if err == nil {
			return dev, nil
		}
		missing := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO)
		retry := missing || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN)
		if !retry || time.Now().After(deadline) {
			if missing {
				return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
			}
			return nil, classify(err)
		}
		if missing && wait > 20*time.Millisecond {
			deadline = time.Now() // no udev here: it will not appear
		}
		time.Sleep(wait)
	}
}

// tryLoop takes the device that is free right now. LOOP_CONFIGURE (Linux 5.8)
// sets everything in one step, so that a crash leaves no half of it.
func tryLoop(control, f *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("get a free loop device: %w", err)
	}
	dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 512}
	// Direct I/O, so that nothing is cached twice. The kernel goes on without it
	// where the file's filesystem cannot read 512 bytes directly.
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], f.Name())
	err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	if errors.Is(err, unix.EINVAL) {
		config.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("configure %s: %w", dev.Name(), err), dev.Close())
	}
	return dev, nil
}
