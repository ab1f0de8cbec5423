package log

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// TestTombstoneCrashes has a replica honour Dropped entries while the machine
// crashes and operations of the disk fail. In the end what was dropped is gone
// from the disk, and all else that was settled is there.
func TestTombstoneCrashes(t *testing.T) {
	author := mustCreateStore(t, storeOptions(crashfs.New(1)))
	defer mustCloseStore(t, author)
	own := author.Own()
	const blocks = 60
	for i := range blocks {
		mustAppend(t, own, fmt.Sprintf("%03d", i)+string(bytes.Repeat([]byte{byte(i)}, 100+i*200)))
	}
	mustCommit(t, own, "c1")
	set := roaring64.New()
	for i := range uint64(blocks) {
		if i%3 == 1 && i > 0 {
			set.Add(i + 1)
		}
	}
	full, err := own.ProveHead(0)
	if err != nil {
		t.Fatal(err)
	}
	size := own.Head().Size
	drop, err := author.AppendControl(&Dropped{Writer: 0, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, own, "c2")
	next, err := own.ProveHead(size)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[uint64][]byte{}
	for i := range own.Head().Size {
		if stored[i], err = own.ReadStored(nil, i); err != nil {
			t.Fatal(err)
		}
	}
	g := author.Genesis()
	crashfs.Explore(t, 60, 1, func(run *crashfs.Run) error {
		s, err := JoinStore(storeOptions(run.FS), Joined{Genesis: &g, Name: "x", Hold: author.HoldSecret()})
		if err != nil {
			return err
		}
		add := func(i uint64) error {
			l := s.Logs()[0]
			tiles, err := l.Lacking(nil, i)
			if err != nil || len(tiles) > 0 {
				return fmt.Errorf("%d tiles are lacking: %w", len(tiles), err)
			}
			if !own.IsControl(i) {
				return l.AddBlock(i, stored[i])
			}
			if l.Holds(i) {
				return nil
			}
			if err := l.AddControlEntry(i, stored[i]); err != nil {
				return err
			}
			return s.TakeControl(l, i)
		}
		if _, err := s.Advance(s.Logs()[0], full); err != nil {
			return err
		}
		for i := range size {
			if err := add(i); err != nil {
				return err
			}
		}
		if err := s.Settle(); err != nil {
			return err
		}
		run.Arm(crashfs.Plan{Crash: 40, Fault: 0.02})
		_, err = s.Advance(s.Logs()[0], next)
		if err == nil {
			err = add(drop)
		}
		if err == nil {
			err = s.Settle()
		}
		run.Logf("dropped: %v; closed: %v", err, s.Close())
		run.Reboot()
		if s, err = OpenStore(storeOptions(run.FS)); err != nil {
			return err
		}
		l := s.Logs()[0]
		if l.Head().Size < own.Head().Size {
			p := next
			if l.Head().Size == 0 {
				if p, err = own.ProveHead(0); err != nil {
					return err
				}
			}
			if _, err := s.Advance(l, p); err != nil {
				return err
			}
		}
		if err := add(drop); err != nil {
			return err
		}
		if err := s.Settle(); err != nil {
			return err
		}
		for i := range size {
			_, err := l.ReadStored(nil, i)
			if dropped := set.Contains(i); dropped != errors.Is(err, ErrDropped) || !dropped && err != nil {
				return fmt.Errorf("block %d, dropped %v: %w", i, dropped, err)
			}
		}
		names, err := run.FS.List("/drive/log-0000/seg")
		if err != nil {
			return err
		}
		var raw []byte
		for _, name := range names {
			b, err := run.FS.ReadFile("/drive/log-0000/seg/" + name)
			if err != nil {
				return err
			}
			raw = append(raw, b...)
		}
		for i := range size {
			if there := bytes.Contains(raw, stored[i]); there == set.Contains(i) {
				return fmt.Errorf("block %d is on the disk: %v", i, there)
			}
		}
		if first, n := l.NextMissing(0, 10); first < size && n > 0 {
			return fmt.Errorf("block %d is missing", first)
		}
		return s.Close()
	})
}

// A control entry cannot be dropped, whatever is declared.
func TestTombstonesSpareControls(t *testing.T) {
	author := mustCreateStore(t, storeOptions(crashfs.New(1)))
	defer mustCloseStore(t, author)
	data := mustAppend(t, author.Own(), "hello")
	mustCommit(t, author.Own(), "c1")
	g := author.Genesis()
	s, err := JoinStore(storeOptions(crashfs.New(2)), Joined{Genesis: &g, Name: "x", Hold: author.HoldSecret()})
	if err != nil {
		t.Fatal(err)
	}
	defer mustCloseStore(t, s)
	l := s.Logs()[0]
	p, err := author.Own().ProveHead(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Advance(l, p); err != nil {
		t.Fatal(err)
	}
	b, err := author.Own().ReadStored(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AddControlEntry(0, b); err != nil {
		t.Fatal(err)
	}
	l.declareDropped(roaring64.BitmapOf(0, data, 1<<40))
	if !l.Holds(0) {
		t.Fatal("the genesis was dropped")
	}
	if _, err := s.ReadLocal(nil, Ref{0, data}, seal.Data); !errors.Is(err, ErrDropped) && !errors.Is(err, seal.ErrNoKey) {
		t.Fatal(err)
	}
}
