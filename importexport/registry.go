package importexport

import (
	"context"
	"errors"
	"fmt"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry"
)

// pull gets an image from its registry. Its layers are downloaded when they are read.
func pull(ctx context.Context, ref image.Ref, platform image.Platform, o Options) (*image.Image, error) {
	c := registry.New(registry.Options{Progress: o.Progress, UserAgent: o.UserAgent, Warn: o.Warn})
	im, err := c.Pull(ctx, ref, registry.PullOptions{Platform: platform})
	if err != nil {
		c.Close()
		return nil, err
	}
	release := im.Release
	im.Release = func() error {
		defer c.Close()
		return release()
	}
	return im, nil
}

// push sends an image to a registry.
func push(ctx context.Context, st *cas.Store, im *image.Image, ref image.Ref, o DockerOptions) error {
	c := registry.New(registry.Options{Progress: o.Progress, UserAgent: o.UserAgent})
	defer c.Close()
	how := registry.Compression(o.Compression)
	switch how {
	case "", registry.Gzip, registry.Zstd, registry.None:
	default:
		return fmt.Errorf("compression %q: %w", o.Compression, errors.ErrUnsupported)
	}
	_, err := c.Push(ctx, ref, im, registry.PushOptions{Store: st, Compression: how})
	return err
}
