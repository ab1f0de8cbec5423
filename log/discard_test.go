package log

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"sync/atomic"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

// TestDiscardCrashes crashes the machine, or the process, and lets the disk fail,
// while a store is removed, and again while its leftovers are: there is all of it
// or nothing, and nothing once that was acknowledged.
func TestDiscardCrashes(t *testing.T) {
	const dir, aside = "/drives/x", "/drives/.left-x"
	// What came of it; runs are beside each other.
	var whole, gone, leftovers atomic.Int64
	crashfs.Explore(t, 200, 1, func(run *crashfs.Run) error {
		o := func() StoreOptions {
			return StoreOptions{FS: run.FS, Dir: dir, Machine: "m", Inline: true, Tiny: true}
		}
		if err := run.FS.MkdirAll("/drives"); err != nil {
			return err
		}
		if err := run.FS.SyncDir("/"); err != nil {
			return err
		}
		s, err := CreateStore(o(), "x")
		if err != nil {
			return err
		}
		var stored [][]byte
		for i := range 20 {
			b, err := s.Keys().Seal(nil, seal.Data, fmt.Append(nil, "block ", i))
			if err != nil {
				return err
			}
			if _, err := s.Own().Append(b); err != nil {
				return err
			}
			stored = append(stored, b)
		}
		if err := errors.Join(appendAll(s, nil, "the last"), s.Close()); err != nil {
			return err
		}

		acked := false
		if run.Rand.IntN(3) == 0 { // killed in the middle of SetAside
			if err := run.FS.Rename(dir, aside); err != nil {
				return err
			}
			run.Kill()
			run.Logf("discard: %v", Discard(run.FS, aside))
		} else {
			run.Arm(crashfs.Plan{Crash: 6, Fault: 0.1})
			if acked = SetAside(run.FS, dir, aside) == nil; acked {
				run.Logf("discard: %v", Discard(run.FS, aside))
			}
		}
		for life := range 3 { // the next starts, of which the last is let be
			run.Reboot()
			names, err := run.FS.List("/drives")
			if err != nil {
				return err
			}
			if slices.Contains(names, ".left-x") {
				leftovers.Add(1)
				if life < 2 {
					run.Arm(crashfs.Plan{Crash: 4, Fault: 0.1})
				}
				run.Logf("discard again: %v", Discard(run.FS, aside))
			}
		}
		if _, err := run.FS.Stat(aside); !errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("leftovers stay: %v", err)
		}
		if _, err := run.FS.Stat(dir); errors.Is(err, iofs.ErrNotExist) {
			gone.Add(1)
			return nil
		}
		if acked {
			return errors.New("the store is there again")
		}
		whole.Add(1)
		if s, err = OpenStore(o()); err != nil {
			return fmt.Errorf("half of a store: %w", err)
		}
		for i, want := range stored {
			if got, err := s.Own().ReadStored(nil, uint64(i)+1); err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("block %d: %w", i, err)
			}
		}
		return s.Close()
	})
	t.Logf("whole %d times, gone %d times, leftovers %d times", whole.Load(), gone.Load(), leftovers.Load())
	if whole.Load() == 0 || gone.Load() == 0 || leftovers.Load() == 0 {
		t.Error("the crashes are not where something is left to chance")
	}
}
