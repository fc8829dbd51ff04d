package container

import (
	"fmt"
	"testing"
)

func BenchmarkGet(b *testing.B) {
	benchDepth(b, func(s *Store, id ID) error { _, err := s.Get(id); return err })
}

func BenchmarkChain(b *testing.B) {
	benchDepth(b, func(s *Store, id ID) error { _, err := s.Chain(id); return err })
}

func BenchmarkResolve(b *testing.B) {
	benchDepth(b, func(s *Store, id ID) error { _, err := s.Resolve(id.String()); return err })
}

func BenchmarkLookup(b *testing.B) {
	benchDepth(b, func(s *Store, id ID) error {
		_, ok, err := s.Lookup(fmt.Sprint("key ", id))
		if !ok {
			b.Error("no such key")
		}
		return err
	})
}

// benchDepth measures what a call takes for containers of 1 to 1,000 layers.
func benchDepth(b *testing.B, call func(s *Store, id ID) error) {
	s := newStore(b)
	layer := stage(b, s, "layer")
	if err := layer.Publish(); err != nil {
		b.Fatal(err)
	}
	makeChain(b, s, layer, 1000)
	for _, depth := range []ID{1, 10, 100, 1000} {
		if err := s.SetKey(fmt.Sprint("key ", depth), depth); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("layers=%d", depth), func(b *testing.B) {
			for b.Loop() {
				if err := call(s, depth); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		create(b, s, 0, "layer")
	}
}
