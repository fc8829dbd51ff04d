package matrix

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The table is between these lines of the README.
const (
	readme     = "../../../README.md"
	beginTable = "<!-- what TestMatrix has measured; go test ./cmd/plash/matrix -update writes it -->\n"
	endTable   = "<!-- end -->\n"
)

// table shows what was measured, as Markdown.
func table(all []row, measured map[string]map[string]string) string {
	var b strings.Builder
	columns := append(append([]string{"host"}, ourColumns...), "bwrap", "Podman", "`ch-run`", "PRoot")
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, w := range all {
		line := []string{w.host}
		for _, column := range append(append([]string{}, ourColumns...), peerColumns...) {
			line = append(line, measured[w.name][column])
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	b.WriteString("\nWhy not all works:\n\n")
	for _, r := range reasons {
		if strings.Contains(b.String(), "| no: "+r.name+" |") {
			fmt.Fprintf(&b, "- %s: %s\n", r.name, r.explain)
		}
	}
	if strings.Contains(b.String(), "| "+unshared+" |") {
		fmt.Fprintf(&b, "- %s: where nothing can be mounted, it takes PRoot to show a command paths of the host\n", unshared)
	}
	return b.String()
}

// compareREADME holds a table against the README's, or writes it there.
func compareREADME(t *testing.T, table string) {
	t.Helper()
	b, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), beginTable)
	old, after, closed := strings.Cut(rest, endTable)
	if !found || !closed {
		t.Fatalf("%s: no place for the table: expected the lines %q and %q", readme, beginTable, endTable)
	}
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("README.md has another table; `go test ./cmd/plash/matrix -update` writes this one:\n%s", table)
	}
	if err := os.WriteFile(readme, []byte(before+beginTable+table+endTable+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
