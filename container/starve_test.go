package container

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Users that overlap all the time do not keep a removal waiting for ever.
func TestRemovalIsNotStarved(t *testing.T) {
	s := newStore(t)
	parent := create(t, s, 0, "parent").ID
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				unlock, err := s.cas.LockShared(ctx)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				time.Sleep(2 * time.Millisecond)
				unlock()
			}
		})
	}
	for i := range 5 {
		begin := time.Now()
		id := create(t, s, parent, fmt.Sprint(i)).ID
		if err := s.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		t.Log(time.Since(begin))
	}
	stop()
	wg.Wait()
}
