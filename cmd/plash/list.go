package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/container"
)

type listOptions struct {
	json  bool
	quiet bool
}

func newList() *command {
	var o listOptions
	c := &command{
		usage: "[--json] [-q]",
		long: `
Lists the containers by id: the parent each stands on, the digest of its own
layer (its first twelve digits), the size of that layer's tar, its age, what
made it, and the names that plash-map has for it.`,
		example: "plash-list\nplash-list -q | xargs -r plash-rm\nplash-list --json | jq '.[].layer'",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runList(ctx, o, s)
		},
	}
	c.options().BoolVar(&o.json, "json", false, "print a JSON array with everything that is known")
	c.options().BoolVarP(&o.quiet, "quiet", "q", false, "print the ids alone")
	return c
}

// listedContainer is an element of the array that --json prints.
type listedContainer struct {
	ID      container.ID     `json:"id"`
	Parent  container.ID     `json:"parent"`
	Layer   string           `json:"layer"`
	Chain   string           `json:"chain"`
	Depth   int              `json:"depth"`
	Size    int64            `json:"size"`
	Created time.Time        `json:"created"`
	Origin  container.Origin `json:"origin"`
	Names   []string         `json:"names"`
	Config  json.RawMessage  `json:"config,omitempty"`
}

func runList(_ context.Context, o listOptions, s streams) error {
	st, err := openStore("list", s)
	if err != nil {
		return err
	}
	records, damaged := st.List()
	if err := printList(st, records, o, s); err != nil {
		return err
	}
	return withHint(damaged, "plash-rm removes a container whose record is damaged")
}

func printList(st *container.Store, records []container.Record, o listOptions, s streams) error {
	if o.quiet && !o.json {
		var b strings.Builder
		for _, r := range records {
			fmt.Fprintln(&b, r.ID)
		}
		return s.print(b.String())
	}
	names, err := namesByID(st)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(s, records, names)
	}
	return printTable(s, records, names, time.Now())
}

// namesByID gives the names of each container, sorted.
func namesByID(st *container.Store) (map[container.ID][]string, error) {
	all, err := st.Names()
	if err != nil {
		return nil, err
	}
	names := make(map[container.ID][]string)
	for _, n := range all {
		names[n.ID] = append(names[n.ID], n.Name)
	}
	return names, nil
}

func printJSON(s streams, records []container.Record, names map[container.ID][]string) error {
	list := make([]listedContainer, 0, len(records))
	for _, r := range records {
		list = append(list, listedContainer{
			ID: r.ID, Parent: r.Parent, Layer: r.Layer.String(), Chain: r.Chain.String(), Depth: r.Depth,
			Size: r.Size, Created: r.Created, Origin: r.Origin, Names: append([]string{}, names[r.ID]...), Config: r.Config,
		})
	}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the list: %w", err)
	}
	return s.print(string(b) + "\n")
}

func printTable(s streams, records []container.Record, names map[container.ID][]string, now time.Time) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tPARENT\tLAYER\tSIZE\tAGE\tNAMES\tMADE BY")
	for _, r := range records {
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Parent, r.Layer.Encoded()[:12],
			humanSize(r.Size), humanAge(now.Sub(r.Created)), orDash(strings.Join(names[r.ID], ",")), madeBy(r.Origin))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return s.print(b.String())
}

// madeBy says in a few words how a container was made.
func madeBy(o container.Origin) string {
	const room = 50
	text := strings.TrimPrefix(o.From, build.Prologue)
	from := []rune(oneLine(text))
	if len(from) > room {
		from = append(from[:room-1], '…')
	}
	return strings.TrimSpace(o.Kind + " " + string(from))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return escape(text)
}

// humanSize gives a number of bytes in powers of 1000, as 5.6MB.
func humanSize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len(sizeUnits) {
		f /= 1000
		unit++
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f%cB", f, sizeUnits[unit-1])
	}
	return fmt.Sprintf("%.0f%cB", f, sizeUnits[unit-1])
}

const sizeUnits = "kMGTPE"

// humanAge gives a time span in its largest unit, as 3h.
func humanAge(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second: // also where the clock was turned back
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d < 730*day:
		return fmt.Sprintf("%dd", d/day)
	}
	return fmt.Sprintf("%dy", d/(365*day))
}
