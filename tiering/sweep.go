package tiering

import (
	"context"
	"fmt"
	"time"

	"hearth/fs"
)

// SweepOptions say how to sweep.
type SweepOptions struct {
	// DryRun only finds out what would go.
	DryRun bool
	// Clock says what time it is, for the age of versions; nil: time.Now.
	Clock func() time.Time
	// Progress may be nil. total is 0 while it is not known.
	Progress func(done, total int64)
	// Grace is as in fs.SweepOptions.
	Grace time.Duration
}

// SweepResult says what a sweep or a purge did, or would do.
type SweepResult struct {
	Versions int64 // that went
	Blocks   int64 // likewise
	Bytes    int64 // what these blocks took
	// Freed is how much smaller the store is. It is less than Bytes while what
	// is left stands among what is needed, and comes back later.
	Freed int64
	// Notes say what could not be done, one line each.
	Notes []string
}

// Sweep drops the versions of a drive that no ladder keeps any more, and the
// blocks that no kept version needs. Programs may use the drive meanwhile. If
// it is interrupted, what it did is done, and the next one goes on.
func Sweep(ctx context.Context, d *fs.Drive, o SweepOptions) (SweepResult, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	u, err := d.BeginUpkeep(ctx)
	if err != nil {
		return SweepResult{}, err
	}
	defer u.End()
	fold, err := plan(u, o.Clock())
	if err != nil {
		return SweepResult{}, fmt.Errorf("planning a sweep: %w", err)
	}
	so := fs.SweepOptions{Grace: o.Grace}
	if o.Progress != nil {
		so.Progress = func(pages int64) { o.Progress(pages, 0) }
	}
	var r SweepResult
	if o.DryRun {
		w, err := u.Measure(ctx, so)
		for i := range u.Versions() {
			if u.Kept(i) == 0 {
				r.Versions++
			}
		}
		r.Blocks, r.Bytes, r.Freed = w.Blocks, w.Bytes, w.Bytes
		return r, err
	}
	n, err := u.Thin(ctx, fold, o.Progress)
	r.Versions = int64(n)
	if err != nil {
		return r, err
	}
	w, err := u.Drop(ctx, so)
	r.Blocks, r.Bytes = w.Blocks, w.Bytes
	if err != nil {
		return r, err
	}
	r.Freed, err = u.Reclaim(ctx)
	return r, err
}
