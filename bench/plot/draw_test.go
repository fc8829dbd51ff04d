package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDraw(t *testing.T) {
	tab := table{
		Title: "Access, to files", Columns: []column{{"walk", "ms"}, {"reads", "/s"}, {"nothing", "ms"}}, Baselines: []string{"base"},
		Rows: []row{
			{Name: "base", Cells: []*cell{{Value: 10, Ratios: []float64{1}}, {Value: 100, Ratios: []float64{1}}, nil}},
			{Name: "plash fuse", Cells: []*cell{{Value: 5, Ratios: []float64{0.5}}, nil, nil}},
			{Name: "broken", Error: "no such program", Cells: []*cell{nil, nil, nil}},
		},
	}
	path := filepath.Join(t.TempDir(), fileName(tab.Title))
	if filepath.Base(path) != "access-to-files.svg" {
		t.Errorf("file name %s", path)
	}
	if drawn, err := draw(tab, path); err != nil || !drawn {
		t.Fatalf("drawn: %v, %v", drawn, err)
	}
	svg, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">walk<", ">reads<", ">plash fuse<", "0.50", "× base"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the drawing lacks %q", want)
		}
	}
	for _, not := range []string{">nothing<", ">broken<"} {
		if strings.Contains(string(svg), not) {
			t.Errorf("the drawing has %q", not)
		}
	}
}

func TestNothingToDraw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.svg")
	drawn, err := draw(table{Title: "x", Columns: []column{{"a", "MB"}}, Rows: []row{{Name: "r", Cells: []*cell{nil}}}}, path)
	if _, serr := os.Stat(path); err != nil || drawn || serr == nil {
		t.Errorf("drawn: %v, %v; file: %v", drawn, err, serr)
	}
}
