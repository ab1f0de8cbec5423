package fs

import (
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"

	"hearth/log"
)

// What upkeep changes in the index. The index is written behind the commits,
// so a crash may leave it without what a sweep did; a file beside it says so
// from before the first of these commits until the index is on disk, and an
// index that is found with it is rebuilt.

const indexUpdating = "UPDATING"

// indexOpening is how long upkeep waits for a database to open; on a full disk
// it may never do.
const indexOpening = 10 * time.Second

// indexUpdate is what changes in the index besides new versions.
type indexUpdate struct {
	gone   [][]byte // keys
	set    []keyValue
	blocks *roaring64.Bitmap // not to be found any more
	last   bool              // nothing is to come
}

type keyValue struct{ key, value []byte }

// forgetVersion takes out what a version did.
func (u *indexUpdate) forgetVersion(seq uint64, changes []change) {
	seen := make(map[Ino]struct{}, len(changes))
	for _, c := range changes {
		if _, ok := seen[c.ino]; !ok {
			seen[c.ino] = struct{}{}
			u.gone = append(u.gone, changeKey(c.ino, seq))
		}
	}
}

// setVersion puts in what a version did, all of whose changes c holds.
func (u *indexUpdate) setVersion(c *commit) {
	for ino, f := range fileChanges(c, c.changes) {
		u.set = append(u.set, keyValue{changeKey(ino, c.seq), f.encode()})
	}
}

func (u *indexUpdate) join(o *indexUpdate) {
	u.gone = append(u.gone, o.gone...)
	u.set = append(u.set, o.set...)
}

func (u *indexUpdate) empty() bool {
	return len(u.gone) == 0 && len(u.set) == 0 && u.blocks == nil && !u.last
}

// expect notes durably that updates will come. If it cannot, on a full disk
// perhaps, the index goes out of use: upkeep does not depend on it.
func (x *index) expect() {
	if x == nil {
		return
	}
	x.mu.Lock()
	if x.expecting || x.broken != nil {
		x.mu.Unlock()
		return
	}
	x.expecting = true
	x.mu.Unlock()
	// A database that is being opened may be replaced, note and all.
	select {
	case <-x.opened:
	case <-time.After(indexOpening):
		x.fail(errors.New("the database is not open yet"))
		return
	}
	err := x.d.store.FS().MkdirAll(x.dir)
	if err == nil {
		err = x.d.store.FS().WriteFile(filepath.Join(x.dir, indexUpdating), []byte{'1'})
	}
	if err != nil {
		x.fail(err)
	}
}

// update queues a change that belongs to versions already queued.
func (x *index) update(u *indexUpdate) {
	if x == nil || u.empty() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken == nil {
		x.updates = append(x.updates, u)
		x.wake.Broadcast()
	}
}

// apply writes updates. It runs on the goroutine that owns the database.
func (x *index) apply(updates []*indexUpdate) error {
	if len(updates) == 0 {
		return nil
	}
	const most = 4096
	b := x.db.NewBatch()
	defer func() { b.Close() }()
	write := func(key, value []byte) error {
		if b.Count() >= most {
			if err := b.Commit(pebble.NoSync); err != nil {
				return err
			}
			b.Reset()
		}
		if value == nil {
			return b.Delete(key, nil)
		}
		return b.Set(key, value, nil)
	}
	for _, u := range updates {
		for _, key := range u.gone {
			if err := write(key, nil); err != nil {
				return err
			}
		}
		for _, kv := range u.set {
			if err := write(kv.key, kv.value); err != nil {
				return err
			}
		}
		if u.blocks == nil {
			continue
		}
		for it := u.blocks.Iterator(); it.HasNext(); {
			desc, err := x.d.own.Descriptor(it.Next())
			if err != nil {
				continue // a damaged header: verification names it
			}
			if err := write(blockKey(desc), nil); err != nil {
				return err
			}
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	if !slices.ContainsFunc(updates, func(u *indexUpdate) bool { return u.last }) {
		return nil
	}
	if err := x.db.Flush(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.updates) > 0 {
		return nil
	}
	x.expecting = false
	x.wake.Broadcast()
	return x.d.store.FS().Remove(filepath.Join(x.dir, indexUpdating))
}

func blockKey(d log.Descriptor) []byte { return append([]byte{'b'}, d.Digest[:16]...) }
