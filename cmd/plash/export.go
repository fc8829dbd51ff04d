package main

import (
	"context"
	"errors"
	"io"

	"github.com/ihucos/plash/importexport"
	"github.com/ihucos/plash/importexport/output"
)

type exportTarOptions struct {
	container containerArg
	file      string // "" and "-": standard output
}

func newExportTar() *command {
	return &command{
		operands: grammar{"CONTAINER", "[FILE|-]"},
		long: `
Writes the root filesystem of CONTAINER as a tar to FILE, or to standard
output. The same container gives the same bytes. A FILE that is there is
replaced when the tar is complete.`,
		example: "plash-export-tar 2 out.tar\nplash-export-tar 2 | zstd > out.tar.zst\nplash-export-tar -i alpine -- out.tar",
		run: func(ctx context.Context, a arguments, s streams) error {
			return runExportTar(ctx, exportTarOptions{container: a.container(0), file: a.operand(1)}, s)
		},
	}
}

func runExportTar(ctx context.Context, o exportTarOptions, s streams) error {
	toStdout := o.file == "" || o.file == "-"
	if toStdout && isTerminal(s.out) {
		return withHint(errors.New("standard output is a terminal, and a tar is not to be read"),
			"name a file, or send it through a pipe")
	}
	st, id, err := o.container.open(ctx, "export-tar", s)
	if err != nil {
		return err
	}
	if toStdout {
		return importexport.ExportTar(ctx, st, id, output.NewWriter(s.out, standardOutput))
	}
	return output.WriteFile(o.file, func(w io.Writer) error {
		return importexport.ExportTar(ctx, st, id, w)
	})
}
