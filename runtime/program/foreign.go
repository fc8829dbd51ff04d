package program

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A foreignError says why execve(2) answers ENOEXEC to a program that is none of this machine.
type foreignError struct {
	file    string // the program or, for a script, its interpreter
	machine string
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s is a program for %s, and this machine is %s: %v", e.file, e.machine, goruntime.GOARCH, unix.ENOEXEC)
}

func (e *foreignError) Unwrap() error { return unix.ENOEXEC }

func (e *foreignError) Hint() string {
	return "import the image for " + goruntime.GOARCH + ", or have the kernel run programs of other machines: sudo apt-get install qemu-user-static"
}

// foreign says of a program that begins with head whether it, or what interprets it, is for another machine;
// nil if it is not.
func foreign(file string, head []byte) *foreignError {
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := strings.Cut(string(head[2:]), "\n")
		words := strings.Fields(line)
		if len(words) == 0 {
			return nil
		}
		file, head = words[0], beginning(words[0])
	default:
		file, head = shell, beginning(shell)
	}
	if machine := machineOf(head); machine != "" && machine != goruntime.GOARCH {
		return &foreignError{file, machine}
	}
	return nil
}

// compatible tells whether processors of this kind mostly execute that program too.
func compatible(e *foreignError) bool {
	return goruntime.GOARCH == "amd64" && e.machine == "386" || goruntime.GOARCH == "arm64" && e.machine == "arm"
}

// isELF tells whether the program is one that no shell makes sense of.
func (p Program) isELF() bool { return bytes.HasPrefix(beginning(p.path), []byte("\x7fELF")) }

// beginning is what execve(2) looks at; nothing if the file cannot be read, which it need not be.
func beginning(file string) []byte {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	head := make([]byte, 256) // BINPRM_BUF_SIZE
	n, err := unix.Pread(fd, head, 0)
	if err != nil {
		return nil
	}
	return head[:n]
}

// machineOf is the machine that an ELF header is for (elf(5), e_machine), by Go's name;
// "" if it is no such header.
func machineOf(head []byte) string {
	const little, big = 1, 2
	if len(head) < 20 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return ""
	}
	var machine uint16
	switch head[5] { // EI_DATA
	case little:
		machine = binary.LittleEndian.Uint16(head[18:])
	case big:
		machine = binary.BigEndian.Uint16(head[18:])
	default:
		return ""
	}
	names := map[uint16]string{
		3: "386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64",
	}
	if head[5] == little && (machine == 8 || machine == 21) {
		return names[machine] + "le"
	}
	if name, ok := names[machine]; ok {
		return name
	}
	return fmt.Sprintf("machine %d", machine)
}

// noFormat puts the reason into an error of a program that is in no format that the kernel knows.
func noFormat(file string, err error) error {
	if !errors.Is(err, unix.ENOEXEC) {
		return err
	}
	if because := foreign(file, beginning(file)); because != nil {
		return because
	}
	return err
}
