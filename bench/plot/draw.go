package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"slices"
	"strings"
	"unicode"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width     = 7 * vg.Inch
	barWidth  = 10
	barHeight = 17 // of a bar with the space around it
	margins   = 70 // of a panel, for its title and axis
)

var (
	oursColor     = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
	othersColor   = color.RGBA{R: 0xa0, G: 0xa0, B: 0xa0, A: 0xff}
	baselineColor = color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 0xff}
)

// bar is a contender in a panel.
type bar struct {
	name  string
	value float64
	label string
	ours  bool
}

// draw draws a table, and tells whether there was anything to draw.
func draw(t table, path string) (drawn bool, err error) {
	type panel struct {
		plot *plot.Plot
		bars int
	}
	var panels []panel
	for i := range t.Columns {
		bars, ratios := barsOf(t, i)
		if len(bars) == 0 {
			continue
		}
		p, err := drawPanel(t, i, bars, ratios)
		if err != nil {
			return false, err
		}
		panels = append(panels, panel{p, len(bars)})
	}
	if len(panels) == 0 {
		return false, nil
	}
	var height vg.Length
	for _, p := range panels {
		height += vg.Length(p.bars*barHeight + margins)
	}
	canvas := vgsvg.New(width, height)
	top := height
	for _, p := range panels {
		bottom := top - vg.Length(p.bars*barHeight+margins)
		area := vgdraw.Canvas{Canvas: canvas, Rectangle: vg.Rectangle{Min: vg.Point{X: 5, Y: bottom + 5}, Max: vg.Point{X: width - 10, Y: top - 10}}}
		p.plot.Draw(area)
		top = bottom
	}
	f, err := os.Create(path)
	if err != nil {
		return false, err
	}
	_, err = canvas.WriteTo(f)
	return true, errors.Join(err, f.Close())
}

// barsOf is what a panel shows of a column: ratios to the first baseline if there are
// any, else the values. Contenders that failed are left out.
func barsOf(t table, i int) (bars []bar, ratios bool) {
	ratios = slices.ContainsFunc(t.Rows, func(r row) bool {
		return i < len(r.Cells) && r.Cells[i] != nil && len(r.Cells[i].Ratios) > 0
	})
	for _, r := range t.Rows {
		if i >= len(r.Cells) || r.Cells[i] == nil {
			continue
		}
		c := r.Cells[i]
		b := bar{name: r.Name, ours: strings.HasPrefix(r.Name, "plash")}
		switch {
		case !ratios:
			b.value, b.label = c.Value, number(c.Value)
		case len(c.Ratios) > 0:
			b.value, b.label = c.Ratios[0], fmt.Sprintf("%.2f  (%s %s)", c.Ratios[0], number(c.Value), t.Columns[i].Unit)
		default:
			continue
		}
		bars = append(bars, b)
	}
	slices.Reverse(bars) // the axis begins at the bottom
	return bars, ratios
}

// drawPanel draws one column.
func drawPanel(t table, i int, bars []bar, ratios bool) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = t.Title
	if len(t.Columns) > 1 {
		p.Title.Text = t.Columns[i].Name
	}
	p.X.Label.Text = t.Columns[i].Unit
	if ratios {
		p.X.Label.Text = "time, × " + t.Baselines[0]
	}
	p.X.Min = 0
	var names []string
	var labels plotter.XYLabels
	var most float64
	for y, b := range bars {
		chart, err := plotter.NewBarChart(plotter.Values{b.value}, barWidth)
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.XMin, chart.LineStyle.Width = true, float64(y), 0
		if chart.Color = othersColor; b.ours {
			chart.Color = oursColor
		}
		p.Add(chart)
		names = append(names, b.name)
		labels.XYs = append(labels.XYs, plotter.XY{X: b.value, Y: float64(y)})
		labels.Labels = append(labels.Labels, b.label)
		most = max(most, b.value)
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for n := range text.TextStyle {
		text.TextStyle[n].YAlign = -0.4 // the middle of the letters at the middle of the bar
	}
	text.Offset = vg.Point{X: 4}
	p.Add(text)
	p.NominalY(names...)
	p.Y.Padding = 40                // a viewer without the font may have wider letters
	p.X.Min, p.X.Max = 0, most*1.35 // room for the labels
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	if ratios {
		one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: p.Y.Min}, {X: 1, Y: p.Y.Max}})
		if err != nil {
			return nil, err
		}
		one.Color = baselineColor
		p.Add(one)
	}
	return p, nil
}

func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// fileName turns a title into the name of a file.
func fileName(title string) string {
	words := strings.FieldsFunc(strings.ToLower(title), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return strings.Join(words, "-") + ".svg"
}
