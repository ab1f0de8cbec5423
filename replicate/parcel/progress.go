package parcel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick = 100 * time.Millisecond
	// smooth is over how many ticks the rate is averaged: three seconds.
	smooth = 30
)

// meter counts and reports. Counting is lock-free and from any goroutine.
type meter struct {
	report func(Progress)
	m      *manifest
	done   atomic.Int64 // bytes, also of the earlier attempt
	total  atomic.Int64
	files  atomic.Int64
	moved  atomic.Int64
	now    atomic.Int64 // entry on its way + 1

	rate  float64
	ticks int
	last  int64 // moved, at the last tick
	at    time.Time
	wg    sync.WaitGroup
	quit  context.CancelFunc
}

// start begins to report until stop.
func (t *meter) start(ctx context.Context, m *manifest) {
	t.m = m
	t.total.Store(m.bytes)
	ctx, t.quit = context.WithCancel(ctx)
	if t.report == nil {
		return
	}
	t.at = time.Now()
	t.wg.Go(func() {
		k := time.NewTicker(tick)
		defer k.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-k.C:
				t.tick(time.Now())
			}
		}
	})
}

// stop ends the reports; the last one is made here.
func (t *meter) stop() {
	if t.quit == nil {
		return
	}
	t.quit()
	t.wg.Wait()
	if t.report != nil {
		t.tick(time.Now())
	}
}

func (t *meter) tick(now time.Time) {
	moved := t.moved.Load()
	if dt := now.Sub(t.at).Seconds(); dt > 0.01 {
		// The first seconds are a plain mean: weights fall from 1 to 1/smooth.
		t.ticks = min(t.ticks+1, smooth)
		t.rate += (float64(moved-t.last)/dt - t.rate) / float64(t.ticks)
		t.at, t.last = now, moved
	}
	p := Progress{Done: t.done.Load(), Total: t.total.Load(), Files: int(t.files.Load()),
		FilesTotal: t.m.files, Rate: t.rate, Left: -1}
	if left := max(p.Total-p.Done, 0); left == 0 {
		p.Left = 0
	} else if s := float64(left) / t.rate; t.rate > 1 && s < 1e9 {
		p.Left = time.Duration(s * float64(time.Second))
	}
	if i := t.now.Load(); i > 0 {
		p.Current = t.m.path(uint32(i - 1))
	}
	t.report(p)
}
