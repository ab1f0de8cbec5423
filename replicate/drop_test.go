package replicate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hearth/log"
)

// segments returns what is in the segment files of a store.
func segments(t *testing.T, s *log.Store) (all []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir(), "log-*", "seg", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// What the author of a drive has purged is gone from the disks of those who
// hold or read it, and they neither serve it nor ask for it again.
func TestDropped(t *testing.T) {
	a, h, b := newDevice(t, "a"), newDevice(t, "h"), newDevice(t, "b")
	store, drive := a.author()
	write(t, drive, "keep", noise(1, 500_000))
	write(t, drive, "purge", noise(2, 500_000))
	link := a.share(store, drive)
	held := holdWhole(t, a, h, store, link)
	joined := b.join(link, false)
	d := b.open(joined)
	read(t, d, "purge", 0, 500_000)

	// The stored bytes of each block that will go, from the middle of it.
	before := map[uint64][]byte{}
	for i := range store.Own().Head().Size {
		if p, err := store.Own().ReadStored(nil, i); err == nil {
			before[i] = p[len(p)/2:][:min(64, len(p)-len(p)/2)]
		}
	}
	if _, err := drive.Purge(testContext(t), "purge", nil); err != nil {
		t.Fatal(err)
	}
	if err := drive.Sync(testContext(t)); err != nil {
		t.Fatal(err)
	}
	gone := store.Own().Dropped()
	if gone.GetCardinality() < 4 {
		t.Fatalf("%d blocks dropped", gone.GetCardinality())
	}
	for name, s := range map[string]*log.Store{"the holder": held, "the reader": joined} {
		l := s.Logs()[0]
		await(t, name+" has heard of it", func() bool { return l.Dropped().Equals(gone) })
		await(t, name+" has forgotten the bytes", func() bool {
			if err := s.Settle(); err != nil { // what is in memory yet
				t.Fatal(err)
			}
			raw := segments(t, s)
			for _, i := range gone.ToArray() {
				if len(before[i]) > 16 && bytes.Contains(raw, before[i]) {
					return false
				}
			}
			return true
		})
		for _, i := range gone.ToArray() {
			if _, err := l.ReadStored(nil, i); !errors.Is(err, log.ErrDropped) || l.Holds(i) {
				t.Fatalf("%s still has block %d: %v", name, i, err)
			}
		}
		if err := l.Verify(context.Background(), func(d log.Damage) { t.Errorf("%s: %v", name, d) }, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The holder is whole without them, and passes its audits.
	awaitWhole(t, held, store)
	left := store.Own().Head().Size - gone.GetCardinality()
	if got := auditOneOf(t, a, store, h); got.Lost+got.Gone > 0 || got.Passed == 0 {
		t.Fatalf("%+v", got)
	}
	await(t, "the holder says that it has all that is left", func() bool {
		for _, p := range a.node.Peers() {
			if p.Key == h.node.Key() {
				return p.Holds[store.DriveID()] == Held{left, left}
			}
		}
		return false
	})
	if got := read(t, d, "keep", 0, 500_000); !bytes.Equal(got, noise(1, 500_000)) {
		t.Fatal("other contents")
	}
	// Also after it was opened again, without a record of its own.
	dir := filepath.Join(t.TempDir(), "again")
	if err := os.CopyFS(dir, os.DirFS(held.Dir())); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := log.OpenStore(log.StoreOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Logs()[0].Dropped().Equals(gone) {
		t.Fatal("after opening it again other blocks are dropped")
	}
	if _, n := again.Logs()[0].NextMissing(0, 1); n > 0 {
		t.Fatal("after opening it again dropped blocks are missed")
	}
}

func auditOneOf(t *testing.T, a *device, store *log.Store, of *device) Audit {
	t.Helper()
	all, err := a.node.Audit(testContext(t), store.DriveID())
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range all {
		if found.Peer == of.node.Key() {
			return found
		}
	}
	t.Fatal("it was not audited")
	panic("unreachable")
}
