package fs

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"hearth/log"
	"hearth/log/seal"
)

// copyOf is a source that has everything the author has.
type copyOf struct{ author *log.Log }

func (c copyOf) Fetch(l *log.Log, indexes []uint64) error {
	for _, index := range indexes {
		tiles, err := l.Lacking(nil, index)
		if err != nil {
			return err
		}
		for _, ref := range tiles {
			data, err := c.author.Tile(ref, 256)
			if err == nil {
				err = l.AddTile(ref, data)
			}
			if err != nil {
				return err
			}
		}
		b, err := c.author.ReadStored(nil, index)
		if err != nil {
			return err
		}
		if c.author.IsControl(index) {
			err = l.AddControlEntry(index, b)
		} else {
			err = l.AddBlock(index, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A followed drive whose next version is under a key that it has not shows the
// last one it can read, also when it is opened again, and goes on when the key
// comes, in whatever order head and key arrive.
func TestFollowAcrossEpochs(t *testing.T) {
	d := newTestDrive(t, Options{})
	store := d.store
	var seeds [2][32]byte
	var ids [2][32]byte
	for i := range seeds {
		seeds[i][0] = byte(i + 1)
		controls, err := store.LinkBoxes(seeds[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Announce(ctx, controls); err != nil {
			t.Fatal(err)
		}
		ids[i] = controls[0].(*log.Recipient).ID()
	}
	dir := filepath.Join(t.TempDir(), "joined")
	g := store.Genesis()
	joined, err := log.JoinStore(log.StoreOptions{Dir: dir}, log.Joined{Genesis: &g, Name: "x", Hold: store.HoldSecret(), Link: &seeds[0]})
	if err != nil {
		t.Fatal(err)
	}
	source := copyOf{store.Own()}
	advance := func(controls bool) {
		t.Helper()
		l, err := joined.Replica(0)
		if err != nil {
			t.Fatal(err)
		}
		old := l.Head().Size
		p, err := store.Own().ProveHead(old)
		if err == nil {
			_, err = joined.Advance(l, p)
		}
		for _, index := range store.Own().Controls(old, 1<<20) {
			if err == nil {
				err = source.Fetch(l, []uint64{index})
			}
			if err == nil && controls {
				err = joined.TakeControl(l, index)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	joined.SetSource(source)
	advance(true)
	open := func() *Drive {
		t.Helper()
		f, err := Open(ctx, Options{Store: joined})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open()
	last := f.Newest()
	if last != d.Newest() {
		t.Fatalf("version %v, not %v", last, d.Newest())
	}

	controls, err := store.Revoke(ids[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(ctx, controls); err != nil {
		t.Fatal(err)
	}
	b, err := store.Own().ReadStored(nil, store.Own().Head().Size-1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := joined.Keys().Open(nil, seal.Commit, b); !errors.Is(err, seal.ErrNoKey) {
		t.Fatalf("the version of the new epoch opens with the old key: %v", err)
	}
	advance(false) // the head comes first
	if err := f.advance(); !errors.Is(err, seal.ErrNoKey) || f.Newest() != last {
		t.Fatalf("%v, version %v", err, f.Newest())
	}
	if err := f.Close(ctx); err != nil {
		t.Fatal(err)
	}
	f = open()
	if f.Newest() != last {
		t.Fatalf("version %v after opening, not %v", f.Newest(), last)
	}
	if _, err := f.Current().Getattr(ctx, RootIno); err != nil {
		t.Fatal(err)
	}
	box := store.BoxesFor(ids[0])[1]
	if err := joined.TakeBox(store.NewestEpoch(), box); err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := f.WaitVersion(wait, last.Seq); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := joined.Close(); err != nil {
		t.Fatal(err)
	}
}

// The checkpoint of a version is the root of the log that ends with it.
func TestCheckpoint(t *testing.T) {
	d := newTestDrive(t, Options{})
	var want [][32]byte
	for range 5 {
		if err := d.Announce(ctx, nil); err != nil {
			t.Fatal(err)
		}
		want = append(want, d.store.Own().Head().Root)
	}
	newest := d.Newest()
	for i, root := range want {
		v := Version{Seq: newest.Seq - uint64(len(want)-1-i)}
		if got, err := d.Checkpoint(ctx, v); err != nil || got != root {
			t.Errorf("%v: %x, %v", v, got, err)
		}
	}
	for _, v := range []Version{{}, {Seq: newest.Seq + 1}, {Writer: 1, Seq: 1}} {
		if _, err := d.Checkpoint(ctx, v); !errors.Is(err, ErrNoVersion) {
			t.Errorf("%v: %v", v, err)
		}
	}
}
