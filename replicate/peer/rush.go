package peer

import (
	"sync/atomic"
	"time"
)

const (
	// A rush begins with rushBytes within rushTime, 40 MB/s, and ends when they
	// take twice as long.
	rushBytes = 4 << 20
	rushTime  = 100 * time.Millisecond
)

// rush notices that much is carried: see Options.Rush.
type rush struct {
	told func(bool)

	bytes   atomic.Int64 // that were carried
	last    atomic.Int64 // when rushBytes of them were full, in ns since 1970
	running atomic.Bool
}

// carry counts n bytes.
func (e *Endpoint) carry(n int) {
	r := &e.rush
	if r.told == nil || n <= 0 {
		return
	}
	sum := r.bytes.Add(int64(n))
	if sum/rushBytes == (sum-int64(n))/rushBytes {
		return
	}
	now := time.Now().UnixNano()
	if now-r.last.Swap(now) < int64(rushTime) && r.running.CompareAndSwap(false, true) {
		if !e.enterWork() {
			return // and no other rush begins
		}
		go func() {
			defer e.working.Done()
			e.watchRush()
		}()
	}
}

// watchRush lasts as long as a rush.
func (e *Endpoint) watchRush() {
	r := &e.rush
	r.told(true)
	defer r.running.Store(false)
	defer r.told(false)
	ticker := time.NewTicker(2 * rushTime)
	defer ticker.Stop()
	for before := r.bytes.Load(); ; {
		select {
		case <-e.ctx.Done():
			return
		case <-ticker.C:
		}
		sum := r.bytes.Load()
		if sum-before < rushBytes {
			return
		}
		before = sum
	}
}
