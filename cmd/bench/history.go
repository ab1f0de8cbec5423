//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// versions saves one document again and again, each time by a program of its
// own and durably, and asks for the list.
func versions(ctx context.Context, e *env, d *daemon) error {
	n := e.count(50_000, 500)
	draft := filepath.Join(e.base, "prep", "draft")
	if err := os.WriteFile(draft, fresh(page), 0o644); err != nil {
		return err
	}
	defer os.Remove(draft)
	document := e.path("document")
	save := exec.CommandContext(ctx, "sh", "-c",
		`i=0; while [ $i -lt "$1" ]; do dd if="$2" of="$3" conv=fsync status=none || exit 1; i=$((i+1)); done`,
		"sh", fmt.Sprint(n), draft, document)
	if _, err := output(save); err != nil {
		return err
	}
	floor, err := median(func() error { return d.run(ctx, "version") })
	if err != nil {
		return err
	}
	e.record("command", ms(floor))
	lines := 0
	all, err := median(func() error {
		out, err := output(d.command(ctx, "log", "-n", "0", document))
		lines = bytes.Count(out, []byte("\n"))
		return err
	})
	if err != nil {
		return err
	}
	if lines < n {
		return fmt.Errorf("%d of %d versions are listed", lines, n)
	}
	e.record("log-all", ms(all))
	newest, err := median(func() error { return d.run(ctx, "log", "-n", "200", document) })
	if err != nil {
		return err
	}
	e.record("log-200", ms(newest))
	folder, err := median(func() error {
		_, err := list(e.path(".history/by-file/document"))
		return err
	})
	if err != nil {
		return err
	}
	e.record("by-file", ms(folder))
	return nil
}

// million measures how a drive opens that somebody has used for years.
func million(ctx context.Context, e *env, d *daemon) error {
	dirs, files, commits := e.count(1000, 10), 1000, e.count(100_000, 1000)
	if err := plant(e, dirs, files); err != nil {
		return err
	}
	if _, err := appends(e.path("journal"), commits, func() bool { return false }); err != nil {
		return err
	}
	newest, err := d.version(ctx)
	if err != nil {
		return err
	}
	if err := d.stop(ctx); err != nil {
		return err
	}
	// Warm: the first start after the stop above reads from the page cache.
	start := time.Now()
	if err := d.mount(ctx); err != nil {
		return err
	}
	if err := exists(e.path("journal")); err != nil {
		return err
	}
	e.record("open-warm", ms(time.Since(start)))
	now, _, err := d.memory(ctx)
	if err != nil {
		return err
	}
	e.record("open-memory", now)
	if err := e.system.settle(ctx); err != nil {
		return err
	}
	if err := d.stop(ctx); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	start = time.Now()
	if err := d.mount(ctx); err != nil {
		return err
	}
	if err := exists(e.path("journal")); err != nil {
		return err
	}
	e.record("open-cold", ms(time.Since(start)))
	if err := past(e, newest, dirs, files); err != nil {
		return err
	}
	if err := command(ctx, "find", e.dir, "-newer", e.path("journal")); err != nil {
		return err
	}
	_, most, err := d.memory(ctx)
	if err != nil {
		return err
	}
	e.record("find-memory", most)
	return nil
}

// plant makes empty files, two folders at a time.
func plant(e *env, dirs, files int) error {
	var g errgroup.Group
	g.SetLimit(2)
	for i := range dirs {
		g.Go(func() error {
			dir := e.path(fmt.Sprintf("d%04d", i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			for j := range files {
				f, err := open(small(dir, j), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
				if err != nil {
					return err
				}
				if err := f.close(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// past opens files at old versions. Each is a version and a path that nobody
// asked for yet; what they share is warm after the first.
func past(e *env, newest uint64, dirs, files int) error {
	var took []time.Duration
	const n = 50
	for i := range n {
		// From the second half: by then every file was there.
		v := newest - uint64(i)*(newest/2)/n
		dir := fmt.Sprintf(".history/@%d/d%04d", v, i*7919%dirs)
		start := time.Now()
		f, err := open(small(e.path(dir), i*104729%files), unix.O_RDONLY)
		if err != nil {
			return err
		}
		took = append(took, time.Since(start))
		if err := f.close(); err != nil {
			return err
		}
	}
	e.record("history-open", ms(quantile(took[1:], 0.5)))
	return nil
}

// version is the newest version of the drive.
func (d *daemon) version(ctx context.Context) (uint64, error) {
	out, err := output(d.command(ctx, "list", "--json"))
	if err != nil {
		return 0, err
	}
	var drives []struct {
		Name    string
		Version uint64
	}
	if err := json.Unmarshal(out, &drives); err != nil {
		return 0, fmt.Errorf("hearth list: %w", err)
	}
	for _, drive := range drives {
		if drive.Name == driveName {
			return drive.Version, nil
		}
	}
	return 0, fmt.Errorf("hearth list does not know %s", driveName)
}
