package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// All of history is the same with the index, without it, and with one that was
// made again, also where versions are not kept.
func TestHistoryDoesNotDependOnTheIndex(t *testing.T) {
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > 25 {
			return // each takes several drives
		}
		k := &chaos{desk: newDesk(t, Options{}), dirs: []Ino{RootIno}}
		defer k.shut()
		programs := []Caller{k.program(), k.program()}
		paths := []string{"/a", "/b", "/c", "/c~"}
		names := slices.Sorted(func(yield func(string) bool) {
			for name := range editors {
				if !yield(name) {
					return
				}
			}
		})
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			c := rapid.SampledFrom(programs).Draw(rt, "program")
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0, 1, 2:
				p := rapid.SampledFrom(paths[:3]).Draw(rt, "path")
				if a, err := k.Lookup(ctx, RootIno, p[1:]); err == nil && a.IsRegular() {
					if _, err := k.Lookup(ctx, RootIno, p[1:]+"~"); err != nil {
						editors[rapid.SampledFrom(names).Draw(rt, "editor")](k.desk, c, p, fmt.Sprint(rapid.IntRange(0, 1000).Draw(rt, "text")))
					}
				}
			case 3:
				_, err := k.Undo(ctx, UndoOptions{})
				if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNothing) && !errors.Is(err, ErrNotEmpty) {
					rt.Log(err)
				}
			default:
				k.step(rt, c)
			}
			if rapid.IntRange(0, 2).Draw(rt, "cut") == 0 {
				k.cut(time.Duration(rapid.IntRange(1, 5000).Draw(rt, "pause")) * time.Millisecond)
			}
		}
		k.cut(0)
		compare := func() {
			with := k.everything(paths...)
			k.opts.NoIndex = true
			k.reopen()
			without := k.everything(paths...)
			k.opts.NoIndex = false
			k.shut()
			if err := os.RemoveAll(filepath.Join(k.dir, "index")); err != nil {
				rt.Fatal(err)
			}
			k.reopen()
			again := k.everything(paths...)
			for name, other := range map[string]string{"without": without, "made again": again} {
				x, y := strings.Split(with, "\n"), strings.Split(other, "\n")
				for i := range min(len(x), len(y)) {
					if x[i] != y[i] {
						rt.Fatalf("line %d with the index:\n%s\n%s:\n%s", i, strings.Join(x[max(0, i-12):min(i+5, len(x))], "\n"), name, strings.Join(y[max(0, i-12):min(i+5, len(y))], "\n"))
					}
				}
				if len(x) != len(y) {
					rt.Fatalf("%d lines with the index, %d %s:\n%s", len(x), len(y), name, other)
				}
			}
		}
		compare()
		var gone []uint64
		for seq := uint64(1); seq < k.Newest().Seq; seq++ {
			if rapid.IntRange(0, 2).Draw(rt, "thin") == 0 {
				gone = append(gone, seq)
			}
		}
		k.thin(gone...)
		compare()
	})
}

// Upkeep right after a start notes what it will do beside an index that may
// just be replaced, and the index is in use all the same.
func TestUpkeepMeetsAnIndexThatIsReplaced(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/f", "one")
	k.cut(time.Minute)
	for range 20 {
		k.shut()
		k.must(os.WriteFile(filepath.Join(k.dir, "index", indexUpdating), nil, 0o600)) // as after a crash
		k.reopen()
		k.index.expect()
		k.index.update(&indexUpdate{last: true})
		if !k.index.await(ctx, k.Newest().Seq) {
			t.Fatalf("the index is out of use: %v", k.index.broken)
		}
		k.index.mu.Lock()
		for k.index.expecting && k.index.broken == nil {
			k.index.wake.Wait()
		}
		k.index.mu.Unlock()
		if k.index.broken != nil {
			t.Fatal(k.index.broken)
		}
	}
}
