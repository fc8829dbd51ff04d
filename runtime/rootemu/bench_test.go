package rootemu

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCalls measures calls in the emulation beside the same number outside of it, where they are
// done by the kernel.
func BenchmarkCalls(b *testing.B) {
	for b.Loop() {
		c := newContainer(b)
		var inside map[string]float64
		if err := json.Unmarshal([]byte(c.run(b, callsName, "costs")), &inside); err != nil {
			b.Fatal(err)
		}
		outside, err := costs(b.TempDir() + "/f")
		if err != nil {
			b.Fatal(err)
		}
		for name, ns := range inside {
			b.ReportMetric(ns, name+"-ns")
			b.ReportMetric(outside[name], name+"-outside-ns")
		}
	}
}

// costs gives the nanoseconds that calls take.
func costs(file string) (map[string]float64, error) {
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return nil, err
	}
	ns := map[string]float64{}
	measure := func(name string, times int, f func()) {
		start := time.Now()
		for range times {
			f()
		}
		ns[name] = float64(time.Since(start).Nanoseconds()) / float64(times)
	}
	measure("getpid", 100000, func() { unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) })
	measure("getuid", 100000, func() { unix.RawSyscall(unix.SYS_GETUID, 0, 0, 0) })
	measure("chown", 10000, func() { _ = unix.Lchown(file, 0, 0) })
	measure("setxattr", 10000, func() { _ = unix.Setxattr(file, "user.x", nil, 0) })
	return ns, nil
}

func printCosts() error {
	ns, err := costs("/tmp/f")
	if err != nil {
		return err
	}
	text, err := json.Marshal(ns)
	fmt.Println(string(text))
	return err
}
