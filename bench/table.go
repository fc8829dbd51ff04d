package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table is what was measured together. It is printed, kept in the file of results
// and drawn from there, so its form there is read by bench/plot too.
type table struct {
	Title     string   `json:"title"`
	Columns   []column `json:"columns"`
	Baselines []string `json:"baselines,omitempty"` // names of rows
	Rows      []row    `json:"rows"`
}

type column struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
}

type row struct {
	Name  string  `json:"name"`
	Error string  `json:"error,omitempty"`
	Cells []*cell `json:"cells"` // one for each column, nil where there is no result
}

type cell struct {
	Value   float64   `json:"value"`             // of the best round
	Samples []float64 `json:"samples,omitempty"` // of all rounds, in their order
	// Ratios are of times, one to each baseline: less than 1 is faster than it,
	// also where the value is a rate.
	Ratios []float64 `json:"ratios,omitempty"`

	best time.Duration
}

// timesTable makes the table of contenders that did one thing each; the baselines
// are contenders too. A baseline that did not take part is left out.
func timesTable(title string, cs []*contender, baselines ...*contender) table {
	t := table{Title: title, Columns: []column{{"time", "ms"}}}
	for _, c := range cs {
		t.Rows = append(t.Rows, newRow(c.name, timed{c, 0, 0}))
	}
	for _, base := range baselines {
		if base.has(0) {
			t.Baselines = append(t.Baselines, base.name)
		}
	}
	t.compare()
	return t
}

// timed is where the time of a cell is from.
type timed struct {
	c     *contender
	i     int // number of what the contender does
	count int // what is done so often, and shown as a rate; 0: shown as a time
}

func newRow(name string, from ...timed) row {
	r := row{Name: name}
	for _, t := range from {
		if err := t.c.err; err != nil && r.Error == "" {
			r.Error = firstLine(err)
		}
		if !t.c.has(t.i) {
			r.Cells = append(r.Cells, nil)
			continue
		}
		c := &cell{best: t.c.best(t.i)}
		c.Value = t.value(c.best)
		for _, d := range t.c.times[t.i] {
			c.Samples = append(c.Samples, t.value(d/time.Duration(max(t.c.per, 1))))
		}
		r.Cells = append(r.Cells, c)
	}
	return r
}

func (t timed) value(d time.Duration) float64 {
	if t.count > 0 {
		return float64(t.count) / d.Seconds()
	}
	return float64(d.Nanoseconds()) / 1e6
}

// compare fills the ratios in.
func (t *table) compare() {
	for _, name := range t.Baselines {
		base := t.row(name)
		for _, r := range t.Rows {
			for i, c := range r.Cells {
				if c != nil && c.best > 0 && base.Cells[i] != nil {
					c.Ratios = append(c.Ratios, float64(c.best)/float64(base.Cells[i].best))
				}
			}
		}
	}
}

func (t *table) row(name string) row {
	for _, r := range t.Rows {
		if r.Name == name {
			return r
		}
	}
	return row{Cells: make([]*cell, len(t.Columns))}
}

// print writes a table in Markdown. A single column has its ratios in columns of
// their own, several have them in parentheses.
func (t *table) print(w io.Writer) error {
	if len(t.Columns) > 1 && len(t.Baselines) > 0 {
		fmt.Fprintf(w, "\n%s (× %s)\n\n", t.Title, t.Baselines[0])
	} else {
		fmt.Fprintf(w, "\n%s\n\n", t.Title)
	}
	head := []string{"what"}
	for _, c := range t.Columns {
		head = append(head, strings.TrimPrefix(c.Name+" "+c.Unit, "time "))
	}
	if len(t.Columns) == 1 {
		for _, name := range t.Baselines {
			head = append(head, "× "+name)
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(words []string) {
		for i, word := range words {
			words[i] = strings.ReplaceAll(word, "|", `\|`) // or it would end the cell
		}
		fmt.Fprintf(tw, "| %s\t|\n", strings.Join(words, "\t| "))
	}
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---"
	}
	line(rule)
	for _, r := range t.Rows {
		words := append([]string{r.Name}, t.words(r)...)
		line(append(words, make([]string, len(head)-len(words))...))
	}
	return tw.Flush()
}

// words is what stands in a row behind its name. The first cell without a result
// has the error.
func (t *table) words(r row) (words []string) {
	failure := r.Error
	for _, c := range r.Cells {
		switch {
		case c == nil:
			words = append(words, failure)
			failure = ""
		case len(t.Columns) == 1:
			words = append(words, number(c.Value))
			for _, ratio := range c.Ratios {
				words = append(words, fmt.Sprintf("%.2f", ratio))
			}
		case len(c.Ratios) > 0:
			words = append(words, fmt.Sprintf("%s (%.2f)", number(c.Value), c.Ratios[0]))
		default:
			words = append(words, number(c.Value))
		}
	}
	return words
}

// number gives as many digits as one can tell apart in a noisy figure.
func number(v float64) string {
	switch {
	case v < 100:
		return fmt.Sprintf("%.2f", v)
	case v < 1000:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
