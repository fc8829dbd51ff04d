// Command plot draws the tables that the benchmarks wrote as JSON: one SVG file for
// each table, with a panel for each column and a bar for each contender.
//
//	cd bench/plot && go run . [-dir DIR] [RESULTS.json]
//
// It is a module of its own, since drawing needs fonts, typesetting and a
// PDF writer, of which the product's go.mod should not know.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// results is the part of the file of results that is drawn. bench/results.go and
// bench/table.go say what the fields mean.
type results struct {
	Kernel string  `json:"kernel"`
	Tables []table `json:"tables"`
}

type table struct {
	Title     string   `json:"title"`
	Columns   []column `json:"columns"`
	Baselines []string `json:"baselines"`
	Rows      []row    `json:"rows"`
}

type column struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
}

type row struct {
	Name  string  `json:"name"`
	Error string  `json:"error"`
	Cells []*cell `json:"cells"`
}

type cell struct {
	Value  float64   `json:"value"`
	Ratios []float64 `json:"ratios"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run() error {
	dir := flag.String("dir", "", "where to write the drawings; else beside the results")
	flag.Parse()
	path := "../out/results.json"
	if flag.NArg() > 0 {
		path = flag.Arg(0)
	}
	if *dir == "" {
		*dir = filepath.Dir(path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, t := range r.Tables {
		out := filepath.Join(*dir, fileName(t.Title))
		drawn, err := draw(t, out)
		if err != nil {
			return fmt.Errorf("draw %s: %w", out, err)
		}
		if drawn {
			fmt.Println(out)
		}
	}
	return nil
}
