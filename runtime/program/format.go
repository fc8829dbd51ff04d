package program

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// CommandLine gives the command line with which execve(2) starts the program, for who has
// others call that and hears little of what comes of it. As execvp(3) would, it has a
// text without #! line run by the shell. The error is an [ExitError].
func (p Program) CommandLine() ([]string, error) {
	argv, err := p.executable()
	if err != nil {
		return nil, execError(p.argv[0], err)
	}
	return argv, nil
}

func (p Program) executable() ([]string, error) {
	fd, err := unix.Open(p.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p.argv, nil // it need not be readable
	}
	f := os.NewFile(uintptr(fd), p.path)
	defer f.Close()
	var head [4096]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	text := head[:n]
	if err := foreign(p.path, text); err != nil && !compatible(err) {
		return nil, err // PRoot would jump into it all the same
	}
	switch {
	case bytes.HasPrefix(text, []byte("#!")):
		line, _, _ := strings.Cut(string(text[2:]), "\n")
		if words := strings.Fields(line); len(words) > 0 && executable(words[0]) != nil {
			return nil, errInterpreter
		}
	case bytes.HasPrefix(text, []byte("\x7fELF")):
		if loader := dynamicLoader(f, text); loader != "" && executable(loader) != nil {
			return nil, errInterpreter
		}
	case !bytes.Contains(text[:min(n, 128)], []byte{0}): // else binfmt_misc may know it
		sh := p.viaShell()
		return append([]string{sh.path}, sh.argv[1:]...), nil
	}
	return p.argv, nil
}

// dynamicLoader is what a program of 64 bits and little endian has as PT_INTERP (elf(5)).
// What is not understood is left to the kernel.
func dynamicLoader(f io.ReaderAt, head []byte) string {
	const class64, little, interp, size = 2, 1, 3, 56 // sizeof(Elf64_Phdr)
	if len(head) < 64 || head[4] != class64 || head[5] != little {
		return ""
	}
	n := binary.LittleEndian
	at, count := int64(n.Uint64(head[32:])), int64(n.Uint16(head[56:])) // e_phoff, e_phnum
	for i := range min(count, 64) {
		var h [size]byte
		if _, err := f.ReadAt(h[:], at+i*size); err != nil {
			return ""
		}
		if n.Uint32(h[:]) != interp {
			continue
		}
		name := make([]byte, min(n.Uint64(h[32:]), unix.PathMax)) // p_filesz
		if _, err := f.ReadAt(name, int64(n.Uint64(h[8:]))); err != nil {
			return ""
		}
		loader, _, _ := strings.Cut(string(name), "\x00")
		return loader
	}
	return ""
}
