package tarstream

import (
	"bytes"
	"io"
	"strconv"
	"testing"
)

// BenchmarkNext reads headers of plain files from memory.
func BenchmarkNext(b *testing.B) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	const entries = 10000
	for i := range entries {
		if err := w.WriteHeader(&Entry{Name: "usr/share/doc/file" + strconv.Itoa(i), Type: TypeReg, Mode: 0o644, MtimeSec: 1700000000}); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(newSource(buf.Bytes()))
		for {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkWriteHeader writes headers of plain files, half of them with a PAX header.
func BenchmarkWriteHeader(b *testing.B) {
	w := NewWriter(io.Discard)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := w.WriteHeader(&Entry{Name: "usr/share/doc/file", Type: TypeReg, Mode: 0o644, MtimeSec: 1700000000, MtimeNsec: uint32(i & 1)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
