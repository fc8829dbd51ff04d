package fusefs

import "testing"

// TestRecentReads has readers of directories, who are recognised though there are
// several, and then one at random, who is not.
func TestRecentReads(t *testing.T) {
	var r recentReads
	read := func(off int64) bool {
		end, near := r.near(off)
		end.Store(off + 1)
		return near
	}
	const dirs, apart = 5, 100 << 20
	for i := range int64(200) {
		for d := range int64(dirs) {
			if near := read(d*apart + i*20_000); near != (i > 0) {
				t.Errorf("directory %d, file %d is read with its surroundings: %v", d, i, near)
			}
		}
	}
	for i := range int64(200) {
		if read(1<<40 + i*i*apart) {
			t.Errorf("read %d at random is read with its surroundings", i)
		}
	}
}
