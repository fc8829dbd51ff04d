package union

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

// TestTrees has random changes done to random trees, in the union and in the kernel's
// overlayfs, which moves the same directories and refuses others: both then look
// the same, also after the union was mounted again.
func TestTrees(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		seeds := uint64(4)
		if testing.Short() {
			if o != (Options{}) {
				return // one after the other, changes do not race
			}
			seeds = 1
		}
		for seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				raw, plain := t.TempDir(), t.TempDir()
				treetest.Make(t, raw, seed, treetest.Options{})
				copyTree(t, raw, plain) // tar does not keep all hard links
				m := newUnion(t, plain, o)
				same(t, "the untouched tree", dump(t, plain), dump(t, m.dir))
				over := overlayOn(t, plain)
				for round := range uint64(4) {
					s := 100 + 10*seed + round
					treetest.Change(t, over, s, 60)
					treetest.Change(t, m.dir, s, 60)
					same(t, "the changed tree", dumpOld(t, over), dumpOld(t, m.dir))
					before := dump(t, m.dir)
					m.remount()
					same(t, "the tree mounted again", before, dump(t, m.dir))
					if t.Failed() {
						return
					}
				}
			})
		}
	})
}

// overlayOn mounts overlayfs on a directory, so that hard links stay together.
func overlayOn(tb testing.TB, lower string) string {
	tb.Helper()
	base := tb.TempDir()
	dir := filepath.Join(base, "m")
	for _, d := range []string{"m", "upper", "work"} {
		must(tb, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	copyRoot(tb, lower, filepath.Join(base, "upper"))
	must(tb, unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf(
		"lowerdir=%s,upperdir=%s/upper,workdir=%s/work,index=on,redirect_dir=nofollow,metacopy=off", lower, base, base)))
	tb.Cleanup(func() { must(tb, unix.Unmount(dir, 0)) })
	return dir
}

var timeField = regexp.MustCompile(` (-?\d+)\.\d{9}`)

// dumpOld is dump without the times that changes themselves have left.
func dumpOld(tb testing.TB, dir string) string {
	now := time.Now().Unix()
	return timeField.ReplaceAllStringFunc(dump(tb, dir), func(s string) string {
		sec, err := strconv.ParseInt(timeField.FindStringSubmatch(s)[1], 10, 64)
		if err == nil && sec > now-600 && sec <= now+1 {
			return " now"
		}
		return s
	})
}
