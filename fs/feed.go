package fs

import (
	"context"
	"sync"
	"time"
)

func unixNano(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// feedWaiters wakes those who follow the drive's versions.
type feedWaiters struct {
	mu     sync.Mutex
	ch     chan struct{}
	closed bool
}

// wait returns a channel that is closed at the next version, or when the drive
// closes.
func (w *feedWaiters) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch == nil {
		w.ch = make(chan struct{})
		if w.closed {
			close(w.ch)
		}
	}
	return w.ch
}

func (w *feedWaiters) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch != nil && !w.closed {
		close(w.ch)
		w.ch = nil
	}
}

func (w *feedWaiters) closeAll() {
	w.wake()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
}

// WaitVersion returns once there is a version newer than seq.
func (d *Drive) WaitVersion(ctx context.Context, seq uint64) error {
	for {
		next := d.waiters.wait()
		if d.Newest().Seq > seq {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.stopped.Done():
			return ErrStale
		case <-next:
		}
	}
}
