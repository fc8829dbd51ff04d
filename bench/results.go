package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"
)

// results is the content of the file of results.
type results struct {
	Kernel string    `json:"kernel"`
	CPUs   int       `json:"cpus"`
	Memory uint64    `json:"memory"` // bytes
	Image  int64     `json:"image"`  // bytes of its tar
	Rounds int       `json:"rounds"`
	Began  time.Time `json:"began"`
	Tables []table   `json:"tables"`
}

// begin notes what figures depend on.
func (b *bench) begin() error {
	var u unix.Utsname
	var info unix.Sysinfo_t
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("ask for the size of the memory: %w", err)
	}
	fi, err := os.Stat(b.tar)
	if err != nil {
		return err
	}
	b.results = results{
		Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: goruntime.NumCPU(), Memory: uint64(info.Totalram) * uint64(info.Unit),
		Image: fi.Size(), Rounds: b.rounds, Began: time.Now().UTC().Truncate(time.Second),
	}
	return nil
}

// report prints a table and writes the file of results anew, so that a run that is
// interrupted leaves what it has measured.
func (b *bench) report(t table) error {
	if err := t.print(os.Stdout); err != nil {
		return err
	}
	b.results.Tables = append(b.results.Tables, t)
	data, err := json.MarshalIndent(b.results, "", "\t")
	if err != nil {
		return fmt.Errorf("results as JSON: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(b.json), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.json, append(data, '\n'), 0o644)
}
