package main

import (
	"context"
	"errors"
	"io"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
	"github.com/ihucos/plash/importexport/output"
)

type exportTarOptions struct {
	container containerArg
	file      string // "" and "-": standard output
	layers    bool   // the top layer alone
}

func newExportTar() *command {
	var o exportTarOptions
	c := &command{
		operands: grammar{"CONTAINER", "[FILE|-]"},
		usage:    "[--layers] CONTAINER [FILE|-]",
		long: `
Writes the root filesystem of CONTAINER as a tar to FILE, or to standard
output. The same container gives the same bytes. A FILE that is there is
replaced when the tar is complete.`,
		example: "plash-export-tar 2 out.tar\nplash-export-tar 2 | zstd > out.tar.zst\nplash-export-tar -i alpine -- out.tar",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.file = a.container(0), a.operand(1)
			return runExportTar(ctx, o, s)
		},
	}
	c.options().BoolVar(&o.layers, "layers", false, "write the top layer alone, as it is, instead of what all of them make up")
	return c
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
	d, err := displayFor(s)
	if err != nil {
		return err
	}
	eo := importexport.ExportOptions{Progress: d.progress(s)}
	export := importexport.ExportTar
	if o.layers {
		export = importexport.ExportLayer
	}
	if toStdout {
		return s.stream(func(w io.Writer) error { return export(ctx, st, id, w, eo) })
	}
	return output.WriteFile(o.file, func(w io.Writer) error { return export(ctx, st, id, w, eo) })
}

// exporter is a way to write a container to the file or directory at a path.
type exporter func(ctx context.Context, st *container.Store, id container.ID, path string, o importexport.ExportOptions) error

// exportCommand is a command that gives a container and a path to an exporter.
func exportCommand(name, place, long, example string, export exporter) *command {
	return &command{
		operands: grammar{"CONTAINER", place},
		long:     long,
		example:  example,
		run: func(ctx context.Context, a arguments, s streams) error {
			st, id, err := a.container(0).open(ctx, name, s)
			if err != nil {
				return err
			}
			d, err := displayFor(s)
			if err != nil {
				return err
			}
			return export(ctx, st, id, a.operand(1), importexport.ExportOptions{
				Progress: d.progress(s),
				Warn:     func(text string) { s.warn(name, errors.New(text)) },
			})
		},
	}
}
