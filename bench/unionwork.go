package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/ihucos/plash/cas/tarstream"
)

// work is what there is to do in a writable root filesystem. All of it is made here, from
// a seed, so that it is the same everywhere and needs no network.
type work struct {
	dir   string // on the host; in the root it is at workDir
	files int    // in the source tree
}

// workDir is where a root finds the work.
const workDir = "/bench"

const (
	sourceFiles  = 3000 // besides the programs
	cFiles       = 60
	packages     = 4
	packageFiles = 250
)

// newWork makes a source tree as a tar, with C files and a Makefile in it, a git
// repository of the same tree, and Debian packages.
func (b *bench) newWork() (w *work, err error) {
	w = &work{dir: filepath.Join(b.dir, "work")}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		return nil, err
	}
	if err := w.sourceTar(); err != nil {
		return nil, err
	}
	if err := b.repository(w); err != nil {
		return nil, err
	}
	return w, b.packages(w)
}

func (w *work) sourceTar() (err error) {
	f, err := os.Create(filepath.Join(w.dir, "source.tar"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	bw := bufio.NewWriterSize(f, 1<<20)
	tw := tarstream.NewWriter(bw)
	add := func(name, content string) error {
		w.files++
		e := tarstream.Entry{Name: "source/" + name, Type: tarstream.TypeReg, Mode: 0o644, Size: int64(len(content)), MtimeSec: 1e9}
		if err := tw.WriteHeader(&e); err != nil {
			return err
		}
		_, err := tw.Write([]byte(content))
		return err
	}
	rnd := rand.New(rand.NewPCG(3, 0))
	for i := range sourceFiles {
		if err := add(fmt.Sprintf("lib%02d/part%d/file%04d.txt", i%30, i%7, i), text(rnd, fileSize(rnd))); err != nil {
			return err
		}
	}
	for i := range cFiles {
		if err := add(fmt.Sprintf("prog/part%02d.c", i), cSource(rnd, i)); err != nil {
			return err
		}
	}
	if err := add("prog/Makefile", makefile); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return bw.Flush()
}

// fileSize draws a size as source trees have them: most are some kilobytes, few are large.
func fileSize(rnd *rand.Rand) int {
	return min(int(2000*rnd.ExpFloat64()*rnd.ExpFloat64()*3)+20, 1<<20)
}

// text is words in lines, which compress about as well as sources do.
func text(rnd *rand.Rand, size int) string {
	var s strings.Builder
	for s.Len() < size {
		for range 10 {
			fmt.Fprintf(&s, "word%d ", rnd.IntN(5000))
		}
		s.WriteByte('\n')
	}
	return s.String()[:size]
}

const makefile = `OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))

prog: $(OBJECTS)
	gcc -o $@ $(OBJECTS)

%.o: %.c
	gcc -O1 -c -o $@ $<
`

// cSource is a part of the program: some functions, and in part 0 a main that calls
// one of each part.
func cSource(rnd *rand.Rand, part int) string {
	var s strings.Builder
	s.WriteString("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n")
	for f := range 8 {
		fmt.Fprintf(&s, "int part%d_%d(int x) {\n\tchar buf[64];\n\tsnprintf(buf, sizeof buf, \"%%d\", x * %d);\n", part, f, rnd.IntN(1000))
		fmt.Fprintf(&s, "\tfor (int i = 0; i < %d; i++)\n\t\tx ^= (int)strlen(buf) * i;\n\treturn x;\n}\n\n", rnd.IntN(50)+1)
	}
	if part != 0 {
		return s.String()
	}
	for i := range cFiles {
		fmt.Fprintf(&s, "int part%d_0(int);\n", i)
	}
	s.WriteString("\nint main(void) {\n\tint x = 1;\n")
	for i := range cFiles {
		fmt.Fprintf(&s, "\tx += part%d_0(x);\n", i)
	}
	s.WriteString("\tprintf(\"%d\\n\", x);\n\treturn 0;\n}\n")
	return s.String()
}

// repository makes a git repository of the source tree.
func (b *bench) repository(w *work) error {
	script := `set -e
		cd "$1"
		mkdir checkout
		tar -x -C checkout --strip-components=1 -f source.tar
		cd checkout
		git init -q -b main .
		git add -A
		git -c user.name=bench -c user.email=bench@localhost commit -q -m source
		git clone -q --bare . ../source.git
		git -C ../source.git gc -q
		rm -r ../checkout`
	env := []string{"GIT_AUTHOR_DATE=1000000000 +0000", "GIT_COMMITTER_DATE=1000000000 +0000", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + w.dir}
	return b.command(env, "sh", "-c", script, "sh", w.dir)
}

// packages makes Debian packages of text files.
func (b *bench) packages(w *work) error {
	rnd := rand.New(rand.NewPCG(4, 0))
	for i := range packages {
		name := fmt.Sprintf("plash-bench-%d", i)
		root := filepath.Join(w.dir, name)
		control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@localhost>\nDescription: files to be installed\n", name)
		if err := put(filepath.Join(root, "DEBIAN/control"), control, 0o644); err != nil {
			return err
		}
		if err := put(filepath.Join(root, "DEBIAN/postinst"), "#!/bin/sh\nset -e\nldconfig\n", 0o755); err != nil {
			return err
		}
		for f := range packageFiles {
			path := fmt.Sprintf("usr/share/%s/part%d/file%d", name, f%12, f)
			if err := put(filepath.Join(root, path), text(rnd, fileSize(rnd)), 0o644); err != nil {
				return err
			}
		}
		// gzip, which every dpkg knows.
		if err := b.command(nil, "dpkg-deb", "--build", "--root-owner-group", "-Zgzip", root, root+".deb"); err != nil {
			return err
		}
		if err := os.RemoveAll(root); err != nil {
			return err
		}
	}
	return nil
}

func put(path, content string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), mode)
}
