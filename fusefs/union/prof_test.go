package union

import (
	"os"
	"runtime/pprof"
)

func init() {
	if p := os.Getenv("PLASH_UNION_PROFILE"); p != "" {
		f, _ := os.Create(p)
		_ = pprof.StartCPUProfile(f)
		stopProfile = func() { pprof.StopCPUProfile(); f.Close() }
	}
}
