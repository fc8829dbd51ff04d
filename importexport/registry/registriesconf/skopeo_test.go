package registriesconf

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// skopeo tells what it tries, and over what.
var (
	tried = regexp.MustCompile(`Trying to access \\"([^"]+?)(:1|@sha256:[0-9a-f]+)\\"`)
	plain = regexp.MustCompile(`"GET http://`)
)

// TestSkopeo holds what is found against what skopeo tries, with the same tables. Nothing can be reached, so it
// tries everything.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("no skopeo here (Debian package skopeo)")
	}
	conf := write(t, t.TempDir(), "registries.conf", allTables)
	ask := func(ref string) string {
		cmd := exec.Command("skopeo", "--debug", "--registries-conf", conf, "inspect", "--raw", "docker://"+ref)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "https_proxy=", "http_proxy=", "NO_PROXY=", "no_proxy=")
		said, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s: it is there: %s", ref, said)
		}
		var all []string
		for line := range strings.Lines(string(said)) {
			if m := tried.FindStringSubmatch(line); m != nil && !strings.Contains(line, "failed") {
				all = append(all, m[1])
			} else if plain.MatchString(line) && len(all) > 0 && !strings.HasSuffix(all[len(all)-1], "+") {
				all[len(all)-1] += "+"
			}
		}
		if strings.Contains(string(said), "is blocked in") {
			all = append(all, "!")
		}
		return strings.Join(all, " ")
	}
	for _, w := range found {
		if !strings.Contains(w.name, "/") || strings.Contains(w.name, ":99") {
			continue // no image, or no name behind the prefix
		}
		if w.tag == "" {
			w.tag = w.name
		}
		if w.digest == "" {
			w.digest = w.tag
		}
		if got := ask(w.name + ":1"); got != w.tag {
			t.Errorf("%s by tag: skopeo tries %q", w.name, got)
		}
		if got := ask(w.name + "@sha256:" + strings.Repeat("0", 64)); got != w.digest {
			t.Errorf("%s by digest: skopeo tries %q", w.name, got)
		}
	}
}
