package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func printed(t *testing.T, tab table) string {
	t.Helper()
	var s strings.Builder
	if err := tab.print(&s); err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func TestTableOfOneColumn(t *testing.T) {
	base := timesOf("cp | sum", []time.Duration{200 * ms, 100 * ms})
	ours := timesOf("plash", []time.Duration{150 * ms, 250 * ms})
	broken := &contender{name: "other", err: errors.New("no such program\nand more")}
	absent := timesOf("absent")
	tab := timesTable("Title", []*contender{base, ours, broken}, base, absent, ours)
	want := `
Title

| what      | ms              | × cp \| sum | × plash |
| ---       | ---             | ---         | ---     |
| cp \| sum | 100.0           | 1.00        | 0.67    |
| plash     | 150.0           | 1.50        | 1.00    |
| other     | no such program |             |         |
`
	if got := printed(t, tab); got != want {
		t.Errorf("got:\n%s\nexpected:\n%s", got, want)
	}
}

// several is a table of two columns, a time and a rate, with a contender that failed
// in the second one.
func several() table {
	base := timesOf("base", []time.Duration{1500 * ms}, []time.Duration{100 * ms, 200 * ms})
	ours := timesOf("plash", []time.Duration{750 * ms}, []time.Duration{50 * ms})
	broken := timesOf("broken", []time.Duration{3000 * ms}, nil)
	broken.err, broken.failed = errors.New("cut off"), 1
	tab := table{Title: "Title", Columns: []column{{"walk", "ms"}, {"reads", "/s"}}, Baselines: []string{"base"}}
	for _, c := range []*contender{base, ours, broken} {
		tab.Rows = append(tab.Rows, newRow(c.name, timed{c, 0, 0}, timed{c, 1, 1000}))
	}
	tab.compare()
	return tab
}

func TestTableOfSeveralColumns(t *testing.T) {
	want := `
Title (× base)

| what   | walk ms      | reads /s     |
| ---    | ---          | ---          |
| base   | 1500 (1.00)  | 10000 (1.00) |
| plash  | 750.0 (0.50) | 20000 (0.50) |
| broken | 3000 (2.00)  | cut off      |
`
	if got := printed(t, several()); got != want {
		t.Errorf("got:\n%s\nexpected:\n%s", got, want)
	}
}

// A column in which the baseline has no result is shown without ratios.
func TestTableWithoutBaseline(t *testing.T) {
	tab := table{Title: "Title", Columns: []column{{"walk", "ms"}, {"read", "ms"}}, Baselines: []string{"base"}}
	base := timesOf("base", []time.Duration{ms}, nil)
	ours := timesOf("plash", []time.Duration{2 * ms}, []time.Duration{3 * ms})
	for _, c := range []*contender{base, ours} {
		tab.Rows = append(tab.Rows, newRow(c.name, timed{c, 0, 0}, timed{c, 1, 0}))
	}
	tab.compare()
	if got := printed(t, tab); !strings.Contains(got, "| plash | 2.00 (2.00) | 3.00    |") {
		t.Errorf("got:\n%s", got)
	}
}

func TestTableAsJSON(t *testing.T) {
	data, err := json.Marshal(several())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"title":"Title","columns":[{"name":"walk","unit":"ms"},{"name":"reads","unit":"/s"}],"baselines":["base"],"rows":[` +
		`{"name":"base","cells":[{"value":1500,"samples":[1500],"ratios":[1]},{"value":10000,"samples":[10000,5000],"ratios":[1]}]},` +
		`{"name":"plash","cells":[{"value":750,"samples":[750],"ratios":[0.5]},{"value":20000,"samples":[20000],"ratios":[0.5]}]},` +
		`{"name":"broken","error":"cut off","cells":[{"value":3000,"samples":[3000],"ratios":[2]},null]}]}`
	if string(data) != want {
		t.Errorf("got:\n%s\nexpected:\n%s", data, want)
	}
}
