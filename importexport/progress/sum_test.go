package progress

import (
	"bytes"
	"sync"
	"testing"
)

func TestSum(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(s *Sum)
	}{
		{"all", wholePlain, func(s *Sum) {
			var wg sync.WaitGroup
			a, b := s.Part(), s.Part()
			for _, p := range []Display{a, b} {
				wg.Go(func() {
					p.Start(50)
					for n := range int64(51) {
						p.Set(n)
					}
					p.Complete()
				})
			}
			wg.Wait()
			s.Close()
		}},
		{"begun again", wholePlain, func(s *Sum) {
			p := s.Part()
			p.Start(100)
			p.Set(20)
			p.Start(100)
			p.Set(100)
			p.Complete()
		}},
		{"less than told", "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\n", func(s *Sum) {
			p := s.Part()
			p.Set(20)
			p.Complete()
			s.Close()
		}},
		{"broken off", "[0%|10%|20%\n", func(s *Sum) { p := s.Part(); s.Part().Complete(); p.Set(20); s.Close() }},
		{"nothing", "", func(s *Sum) { s.Part(); s.Close() }},
		{"done", "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\n", func(s *Sum) { s.Part().Set(100); s.Done(); s.Close() }},
	} {
		var b bytes.Buffer
		c.do(NewSum(Serial(NewPlain(&b)), 100))
		if b.String() != c.want {
			t.Errorf("%s: %q, want %q", c.name, b.String(), c.want)
		}
	}
}
