package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/importexport"
	"github.com/ihucos/plash/importexport/image"
)

type exportDockerOptions struct {
	container   containerArg
	ref         string
	compression string
}

func newExportDocker() *command {
	var o exportDockerOptions
	c := &command{
		operands: grammar{"CONTAINER", "REF"},
		usage:    "[--compression gzip|zstd|none] CONTAINER REF",
		long: `
Gives CONTAINER to other tools as an image. REF says where to:

  NAME[:TAG], docker-daemon:NAME[:TAG]  the Docker or Podman engine of this machine
  docker://HOST/NAME[:TAG]              a registry
  docker-archive:FILE[:NAME:TAG]        a file for docker load and podman load
  oci:DIR[:TAG]                         an OCI layout, to which the image is added
  oci-archive:FILE[:TAG]                an OCI layout in a tar

An image that was imported is given back as it came; what was built on one keeps
its configuration, and layers say by which script they were made. Layers are
copied, not packed again, and compressed only for a registry. The same container
gives the same bytes; with SOURCE_DATE_EPOCH in the environment, what plash made
has that time.`,
		example: "plash-export-docker 2 docker-archive:image.tar:app:1.0\nplash-export-docker -i alpine -x 'apk add curl' -- curl:latest\nplash-export-docker 2 oci:layout:v1",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.ref = a.container(0), a.operand(1)
			return runExportDocker(ctx, "export-docker", o, s)
		},
	}
	o.addCompression(c)
	return c
}

func (o *exportDockerOptions) addCompression(c *command) {
	c.options().StringVar(&o.compression, "compression", "", "how layers are compressed that a registry does not have: gzip (the default), zstd or none")
}

func runExportDocker(ctx context.Context, command string, o exportDockerOptions, s streams) error {
	if o.compression != "" && !slices.Contains([]string{"gzip", "zstd", "none"}, o.compression) {
		return &usageError{what: fmt.Sprintf("--compression %s: not one of gzip, zstd, none", o.compression)}
	}
	if _, err := image.ParseRef(o.ref); err != nil {
		return refError(err)
	}
	epoch, err := sourceDateEpoch()
	if err != nil {
		return err
	}
	st, id, err := o.container.open(ctx, command, s)
	if err != nil {
		return err
	}
	d, err := displayFor(s)
	if err != nil {
		return err
	}
	return refError(importexport.ExportDocker(ctx, st, id, o.ref, importexport.DockerOptions{
		Epoch: epoch, Prologue: build.Prologue, Compression: o.compression, Progress: d.progress(s), UserAgent: userAgent(),
	}))
}

// refError makes an error about a reference one of usage.
func refError(err error) error {
	if errors.Is(err, image.ErrBadRef) || errors.Is(err, importexport.ErrBadExport) {
		return &usageError{what: err.Error(), hint: "REF is NAME[:TAG], docker://HOST/NAME[:TAG], docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]"}
	}
	return err
}

// sourceDateEpoch is the time that the variable SOURCE_DATE_EPOCH names, nil for none: see
// reproducible-builds.org/specs/source-date-epoch.
func sourceDateEpoch() (*time.Time, error) {
	value := os.Getenv("SOURCE_DATE_EPOCH")
	if value == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	const last = 253402300799 // the year 9999, beyond which RFC 3339 has no form
	if err != nil || seconds < 0 || seconds > last || strings.HasPrefix(value, "+") {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH is %q: not a number of seconds since 1970", value)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}
