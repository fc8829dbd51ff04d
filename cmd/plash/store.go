package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/overlay/copytree"
	"github.com/ihucos/plash/runtime"
)

// storeDir is where the store is, or will be made.
func storeDir() (string, error) {
	if dir := os.Getenv("PLASH_DATA"); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("find the store: PLASH_DATA: %w", err)
		}
		return abs, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/plash", nil
	}
	// The XDG base directory specification: a relative path is not to be used.
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, binary), nil
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/share", binary), nil
	}
	return "", withHint(errors.New("find the store: no home directory: HOME is not set"), "PLASH_DATA names a store")
}

// openStore opens the store for the command of that name. It makes the store if
// nothing is there, and removes what killed processes have left in it.
func openStore(name string, s streams) (*container.Store, error) {
	dir, err := storeDir()
	if err != nil {
		return nil, err
	}
	blobs, err := cas.Open(dir)
	if errors.Is(err, cas.ErrNoStore) {
		if err = cas.Init(dir); err == nil {
			blobs, err = cas.Open(dir)
		}
	}
	if err != nil {
		return nil, storeError(err)
	}
	if err := runtime.Reclaim(blobs); err != nil {
		s.warn(name, err)
	}
	st, err := container.Open(blobs, overlay.CollectUnpacked, copytree.Collect, image.CollectCompressed)
	if err != nil {
		return nil, storeError(err)
	}
	return st, nil
}

// ownStoreHint is for those who may not write the store.
const ownStoreHint = "PLASH_DATA names a store of your own"

// storeError tells who may not write the store how to have one of his own.
func storeError(err error) error {
	if unwritable(err) {
		return withHint(err, ownStoreHint)
	}
	return err
}

type initOptions struct{}

func newInit() *command {
	return &command{
		long: `
Makes the store: the directory that holds layers and containers. A store that
is there already is left as it is. Other commands make the store themselves
where they need it.

PLASH_DATA says where the store is, else it is /var/lib/plash for root and
$XDG_DATA_HOME/plash or ~/.local/share/plash for others.`,
		example: "plash-init\nPLASH_DATA=/srv/plash plash-init",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runInit(ctx, initOptions{}, s)
		},
	}
}

func runInit(_ context.Context, _ initOptions, s streams) error {
	dir, err := storeDir()
	if err != nil {
		return err
	}
	if err := cas.Init(dir); err != nil {
		return storeError(err)
	}
	_, err = openStore("init", s)
	return err
}

type dataOptions struct{}

func newData() *command {
	return &command{
		long:    "Prints the path of the store, whether it is there or not. See plash-init for where it is.",
		example: "du -sh $(plash-data)",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runData(ctx, dataOptions{}, s)
		},
	}
}

func runData(_ context.Context, _ dataOptions, s streams) error {
	dir, err := storeDir()
	if err != nil {
		return err
	}
	return s.result(dir)
}
