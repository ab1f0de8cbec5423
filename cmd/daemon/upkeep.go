package daemon

import (
	"context"
	"errors"
	"time"

	"hearth/cmd/control"
	"hearth/fs"
	"hearth/tiering"
)

// This file is all that the daemon knows of retention.

// Sweeping in the background: a drive that nobody changed for idleTime is
// swept when something was written since its last sweep, and else once in
// agingTime, because versions age out of the ladder by themselves.
const (
	upkeepInterval = time.Minute
	idleTime       = 5 * time.Minute
	agingTime      = 6 * time.Hour
)

// sweepState is what upkeep remembers of a drive; used by its goroutine alone.
type sweepState struct {
	seen      fs.Version // newest version at the last look
	since     time.Time  // when it was first seen
	swept     fs.Version // newest version at the last sweep
	lastSweep time.Time
}

// due reports whether a drive should be swept now.
func (s *sweepState) due(newest fs.Version, now time.Time) bool {
	if s.lastSweep.IsZero() {
		s.lastSweep = now // the start of a daemon is busy enough
	}
	if newest != s.seen {
		s.seen, s.since = newest, now
	}
	switch {
	case now.Sub(s.since) < idleTime:
		return false
	case newest != s.swept:
		return now.Sub(s.lastSweep) >= idleTime
	}
	return now.Sub(s.lastSweep) >= agingTime
}

// upkeep sweeps drives while they are idle.
func (d *Daemon) upkeep(ctx context.Context) {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.eachDrive(func(h *held) {
				if ctx.Err() == nil && h.swept.due(h.drive.Newest(), now) {
					d.sweepIdle(ctx, h, now)
				}
			})
		}
	}
}

func (d *Daemon) sweepIdle(ctx context.Context, h *held, now time.Time) {
	r, err := tiering.Sweep(ctx, h.drive, tiering.SweepOptions{})
	h.swept.swept, h.swept.lastSweep = h.drive.Newest(), now
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		d.logger.Error("a sweep failed", "drive", h.name, "err", err)
	default:
		d.logger.Info("swept", "drive", h.name, "versions", r.Versions, "blocks", r.Blocks, "bytes", r.Freed)
	}
}

func (d *Daemon) sweep(ctx context.Context, req control.SweepRequest, out *sink) (control.Swept, error) {
	p, err := d.findDrive(ctx, req.Drive)
	if err != nil {
		return control.Swept{}, err
	}
	r, err := tiering.Sweep(ctx, p.drive, tiering.SweepOptions{DryRun: req.DryRun,
		Progress: func(done, total int64) { out.progress("sweep", done, total) }})
	return swept(r, req.DryRun), err
}

// purge removes a file or folder from the present and from every version.
func (d *Daemon) purge(ctx context.Context, req control.Target, out *sink) (control.Swept, error) {
	p, err := d.findPresent(ctx, req, "purge")
	if err != nil {
		return control.Swept{}, err
	}
	if p.path == "/" {
		return control.Swept{}, control.Failed("purge what is in it", "the top of a drive cannot be purged")
	}
	// Half of it would be a file that is gone from the folder and can be read in
	// the history: whoever asked may leave, the purge goes on.
	lasting, end := d.lasting(ctx)
	defer end()
	r, err := p.drive.Purge(lasting, p.path, func(done, total int64) { out.progress("purge", done, total) })
	d.settle(lasting, p.name)
	if err != nil && ctx.Err() != nil {
		d.logger.Error("a purge that nobody waits for failed", "drive", p.name, "path", control.Show(p.path), "err", err)
	}
	var linked *fs.LinkedError
	if errors.As(err, &linked) {
		return control.Swept{}, control.Failed("nothing was purged", "%w", err)
	}
	return control.Swept{Versions: r.Versions, Blocks: r.Blocks, Bytes: r.Freed, Notes: r.Left}, err
}

func swept(r tiering.SweepResult, dry bool) control.Swept {
	s := control.Swept{Versions: r.Versions, Blocks: r.Blocks, Bytes: r.Freed, Notes: r.Notes, DryRun: dry}
	if dry {
		s.Bytes = r.Bytes
	}
	return s
}

// retain shows what is kept of a folder, or sets it.
func (d *Daemon) retain(ctx context.Context, req control.RetainRequest) (control.Retained, error) {
	var p place
	var err error
	if req.Set {
		p, err = d.findPresent(ctx, req.Target, "retain")
	} else {
		p, err = d.find(ctx, req.Target)
	}
	if err != nil {
		return control.Retained{}, err
	}
	if req.Set {
		ladder, err := tiering.ParseLadder(req.Ladder)
		if err != nil {
			return control.Retained{}, control.Usage("a ladder is as \"all:1d 1h:7d 1d:90d 1w:2y undelete:30d\", or none", "%w", err)
		}
		if err := tiering.SetLadder(ctx, p.drive, p.path, ladder); err != nil {
			return control.Retained{}, err
		}
	}
	ladder, from, err := tiering.LadderOf(ctx, p.drive, p.path)
	if err != nil {
		return control.Retained{}, err
	}
	return control.Retained{Path: control.PathOf(p.path), Ladder: ladder.String(), Inherited: from != p.path}, nil
}
