//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// cost is a group of measurements that only Hearth has: absolute figures on a
// new drive of its own.
type cost struct {
	name string
	long bool // only when asked for
	run  func(ctx context.Context, e *env, d *daemon) error
}

var costs = []cost{
	{"clone", false, clone},
	{"edit", false, edit},
	{"insert", false, insert},
	{"metadata", false, metadata},
	{"versions", false, versions},
	{"million", true, million},
}

// absolute measures the costs, once each repetition.
func (b *bench) absolute(ctx context.Context) error {
	var failed error
	for _, c := range costs {
		if !b.wanted(c.name) || c.long && !b.long && !b.only[c.name] || len(b.among) > 0 && !b.among["hearth"] {
			continue
		}
		reps := b.reps
		if c.long {
			reps = 1
		}
		for range reps {
			if err := b.cost(ctx, c); err != nil {
				err = fmt.Errorf("%s: %w", c.name, err)
				b.progress("%v", err)
				failed = errors.Join(failed, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return failed
}

func (b *bench) cost(ctx context.Context, c cost) error {
	d := b.newHearth("hearth-" + c.name)
	if err := d.create(ctx); err != nil {
		return err
	}
	defer d.remove(context.WithoutCancel(ctx), b)
	return c.run(ctx, &env{bench: b, system: d.system, dir: d.dir, record: func(row string, value float64) {
		b.progress("%-12s %-20s %s", "hearth", row, number(value))
		b.report.add(row, "hearth", value)
	}}, d)
}

// clone copies a file that is committed: its extents are cloned.
func clone(ctx context.Context, e *env, _ *daemon) error {
	if _, err := e.writeBig(big); err != nil {
		return err
	}
	if err := e.system.settle(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := command(ctx, "cp", e.path(big), e.path("copy")); err != nil {
		return err
	}
	e.record("clone", ms(time.Since(start)))
	return command(ctx, "cmp", e.path(big), e.path("copy"))
}

// edit overwrites single pages of a big file, each with fsync.
func edit(ctx context.Context, e *env, d *daemon) error {
	if _, err := e.writeBig(big); err != nil {
		return err
	}
	before, err := d.usage(ctx)
	if err != nil {
		return err
	}
	n := e.count(1000, 100)
	data, pages := fresh(n*page), e.size(gib)/page
	f, err := open(e.path(big), unix.O_RDWR)
	if err != nil {
		return err
	}
	took := make([]time.Duration, 0, n)
	for i := range n {
		start := time.Now()
		err = f.writeAt(data[i*page:(i+1)*page], rand.IntN(pages)*page)
		if err == nil {
			err = f.sync()
		}
		if err != nil {
			return errors.Join(err, f.close())
		}
		took = append(took, time.Since(start))
	}
	if err := f.close(); err != nil {
		return err
	}
	after, err := d.usage(ctx)
	if err != nil {
		return err
	}
	e.record("edit-growth", float64(after-before)/float64(n)/kib)
	appended, err := appends(e.path("append"), n, func() bool { return false })
	if err != nil {
		return err
	}
	e.record("edit-time", float64(quantile(took, 0.5))/float64(quantile(appended, 0.5)))
	return nil
}

// insert rewrites a file as an editor does that saves all of it: the same
// bytes, with a little more in the middle.
func insert(ctx context.Context, e *env, d *daemon) error {
	size := e.size(100 * mib)
	data := fresh(size)
	write := func() error {
		f, err := open(e.path("document"), unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY)
		if err != nil {
			return err
		}
		for off := 0; off < len(data) && err == nil; off += block {
			err = f.writeAt(data[off:min(off+block, len(data))], off)
		}
		if err == nil {
			err = f.sync()
		}
		return errors.Join(err, f.close())
	}
	if err := write(); err != nil {
		return err
	}
	before, err := d.usage(ctx)
	if err != nil {
		return err
	}
	middle := append(fresh(kib), data[size/2:]...)
	data = append(data[:size/2:size/2], middle...)
	if err := write(); err != nil {
		return err
	}
	after, err := d.usage(ctx)
	if err != nil {
		return err
	}
	e.record("insert-growth", float64(after-before)/1e6)
	return nil
}

// metadata fills a drive with small files, deletes them and takes that back.
func metadata(ctx context.Context, e *env, d *daemon) error {
	n := e.count(100_000, 1000)
	dir := e.path(many)
	if _, err := makeMany(dir, n); err != nil {
		return err
	}
	used, err := d.usage(ctx)
	if err != nil {
		return err
	}
	e.record("metadata", float64(used-int64(n*page))/float64(n))
	if err := command(ctx, "rm", "-r", dir); err != nil {
		return err
	}
	if err := e.system.settle(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := d.run(ctx, "undo", e.dir); err != nil {
		return err
	}
	e.record("undo", time.Since(start).Seconds())
	back, err := list(dir)
	if err != nil {
		return err
	}
	if len(back) != n {
		return fmt.Errorf("undo brought back %d of %d files", len(back), n)
	}
	return nil
}

// median runs fn a few times, once to warm up, and returns the median time.
func median(fn func() error) (time.Duration, error) {
	var took []time.Duration
	for i := range 6 {
		start := time.Now()
		if err := fn(); err != nil {
			return 0, err
		}
		if i > 0 {
			took = append(took, time.Since(start))
		}
	}
	return quantile(took, 0.5), nil
}

// exists is for figures that need a path to be there.
func exists(path string) error {
	_, err := os.Lstat(path)
	return err
}
