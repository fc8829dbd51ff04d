package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ihucos/plash/runtime"
)

type doctorOptions struct{ json bool }

func newDoctor() *command {
	var o doctorOptions
	c := &command{
		usage: "[--json]",
		long: `
Says what works on this host, by trying it: namespaces, filesystems, helper
programs. Then which backend runs, builds and mounts containers, what would have
been better and why that is not used, and how to get it.`,
		example: "plash-doctor\nplash-doctor --json | jq '.choices[] | .backend'",
		run: func(ctx context.Context, _ arguments, s streams) error {
			return runDoctor(ctx, o, s)
		},
	}
	c.options().BoolVar(&o.json, "json", false, "print it as JSON")
	return c
}

func runDoctor(ctx context.Context, o doctorOptions, s streams) error {
	st, err := openStore("doctor", s)
	if err != nil {
		return err
	}
	h, err := runtime.Examine(ctx, st.CAS())
	if err != nil {
		return err
	}
	if o.json {
		b, err := json.MarshalIndent(h, "", "  ")
		if err != nil {
			return err
		}
		return s.print(string(b) + "\n")
	}
	return s.print(hostReport(h))
}

// backendMeanings say what the backends are.
var backendMeanings = map[string]string{
	"erofs":  "the kernel mounts index and blobs, overlayfs on top",
	"unpack": "layers unpacked once, the kernel's overlayfs on top",
	"fuse":   "our FUSE filesystem, under the kernel's overlayfs to work in",
	"union":  "our FUSE filesystem alone",
	"copy":   "a scratch copy of the container's tree, and chroot",
	"proot":  "a scratch copy of the container's tree, and proot",
}

// hostReport is what runtime found, for people.
func hostReport(h *runtime.Host) string {
	var b bytes.Buffer
	name := strconv.Itoa(h.UID)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	fmt.Fprintf(&b, "Linux %s, user %s\n\n", h.Kernel, name)
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, m := range h.Mechanisms {
		fmt.Fprintf(w, "%s\t%s\t%s\n", m.Name, yesNo(m.Works), oneLine(m.Detail))
	}
	w.Flush()
	b.WriteString("\n")
	for _, c := range h.Choices {
		if c.Backend == "" {
			fmt.Fprintf(&b, "%s: not possible here\n", c.Task)
		} else {
			fmt.Fprintf(&b, "%s: %s (%s)\n", c.Task, c.Backend, backendMeanings[c.Backend])
		}
		for _, p := range c.Passed {
			fmt.Fprintf(&b, "  not %s: %s\n", p.Backend, oneLine(p.Reason))
		}
	}
	if hints := hintsOf(h); len(hints) > 0 {
		b.WriteString("\nWhat would help:\n")
		for _, hint := range hints {
			fmt.Fprintf(&b, "  %s\n", hint)
		}
	}
	return b.String()
}

// hintsOf lists how to get what does not work, each once.
func hintsOf(h *runtime.Host) []string {
	var hints []string
	seen := map[string]bool{}
	for _, m := range h.Mechanisms {
		if m.Hint != "" && !seen[m.Hint] {
			seen[m.Hint] = true
			hints = append(hints, m.Name+": "+strings.ReplaceAll(m.Hint, "\n", " "))
		}
	}
	return hints
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
