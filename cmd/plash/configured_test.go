package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
)

// configured is a program that makes a container on another one, with an OCI image
// configuration and an empty layer, and prints its id: configured 1 config.json. What comes
// out of a registry looks like that.
func configured() {
	id, err := makeConfigured(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "configured:", err)
		os.Exit(1)
	}
	fmt.Println(id)
}

func makeConfigured(args []string) (container.ID, error) {
	if len(args) != 2 {
		return 0, fmt.Errorf("usage: configured CONTAINER FILE")
	}
	config, err := os.ReadFile(args[1])
	if err != nil {
		return 0, err
	}
	st, err := openStore("configured", streams{err: os.Stderr})
	if err != nil {
		return 0, err
	}
	parent, err := st.Resolve(args[0])
	if err != nil {
		return 0, err
	}
	const endOfTar = 1024 // zeros
	layer, err := st.CAS().Ingest(context.Background(), bytes.NewReader(make([]byte, endOfTar)), cas.IngestOptions{})
	if err != nil {
		return 0, err
	}
	defer layer.Close()
	r, err := st.Create(context.Background(), parent, layer, container.CreateOptions{
		Origin: container.Origin{Kind: "import", From: "a test"}, Config: json.RawMessage(config),
	})
	return r.ID, err
}
