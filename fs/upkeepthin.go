package fs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hearth/log/seal"
)

// Thinning. A version goes by losing its record in the tree of the newest one.
// What it says was changed must not go with it: feeds, file histories and undo
// read the change lists of the versions there are, and each of these lists has
// to say all that happened since the version before it. So the version that
// stays next takes over the lists of those that go: its commit block is
// written once more, with the same state and a longer list, and its record
// leads there.

// thinBatch is how many records one hidden commit takes out at most: programs
// that wait for a commit wait for no more than that.
const thinBatch = 512

// Thin takes out the versions for which nothing was said to Keep, and returns
// how many. Versions older than fold are taken together with what they take
// over: of several changes to one thing only the last is told apart.
func (u *Upkeep) Thin(ctx context.Context, fold time.Time, progress func(done, total int64)) (int, error) {
	u.keepNewest()
	total := int64(0)
	for _, v := range u.all {
		if v.keep == 0 {
			total++
		}
	}
	if total == 0 {
		return 0, nil
	}
	// The newest version may have to take something over, and can only do so
	// as an old one.
	if last := u.all[len(u.all)-1]; !last.hidden {
		if err := u.d.commitUpkeep(false, func() error { return nil }); err != nil {
			return 0, err
		}
	}
	t := &thinning{u: u, fold: fold.UnixNano()}
	for _, v := range u.all {
		if err := ctx.Err(); err != nil {
			return t.dropped, err
		}
		if err := t.next(v); err != nil {
			return t.dropped, fmt.Errorf("thinning the history: %w", err)
		}
		if progress != nil {
			progress(int64(t.dropped), total)
		}
	}
	if err := t.flush(true); err != nil {
		return t.dropped, fmt.Errorf("thinning the history: %w", err)
	}
	u.all = slices.DeleteFunc(u.all, func(v *kept) bool { return v.keep == 0 })
	return t.dropped, nil
}

// keepNewest has the newest version stay, and the newest that is not hidden:
// what it shows is the present, and it tells what led to it.
func (u *Upkeep) keepNewest() {
	u.all[len(u.all)-1].keep = AllClasses
	for _, v := range slices.Backward(u.all) {
		if !v.hidden {
			v.keep = AllClasses
			return
		}
	}
}

// thinning is one run of Thin.
type thinning struct {
	u       *Upkeep
	fold    int64
	dropped int
	run     thinStep   // the versions that go before the present one
	list    changeList // what they say
	batch   []thinStep
}

// thinStep takes versions out, and has the one after them be found elsewhere.
type thinStep struct {
	gone  []*kept
	stays *kept
	index uint64 // where its commit block is now; 0: as it was
	known indexUpdate
}

// next goes on to version v.
func (t *thinning) next(v *kept) error {
	if v.keep != 0 || len(t.run.gone) >= thinBatch && !v.hidden {
		if err := t.end(v); err != nil {
			return err
		}
	}
	if v.keep != 0 {
		return nil
	}
	t.run.gone = append(t.run.gone, v)
	if v.hidden {
		return nil
	}
	c, changes, err := t.read(v)
	if err != nil {
		return err
	}
	t.run.known.forgetVersion(v.seq, changes)
	t.list.add(c.actors, changes)
	return nil
}

func (t *thinning) read(v *kept) (*commit, []change, error) {
	c, err := t.u.commitOf(v)
	if err != nil {
		return nil, nil, err
	}
	changes, err := t.u.d.allChanges(t.u.d.writer, c)
	return c, changes, err
}

// end ends a run of versions that go: v takes over what they say. If v goes
// too, in the next batch, it does so all the same: a crash between the batches
// must not lose what was said.
func (t *thinning) end(v *kept) error {
	if len(t.run.gone) == 0 {
		return nil
	}
	step, list := t.run, t.list
	t.run, t.list = thinStep{}, changeList{}
	step.stays = v
	if len(list.changes) > 0 {
		c, changes, err := t.read(v)
		if err != nil {
			return err
		}
		list.add(c.actors, changes)
		next := *c
		next.actors, next.changes = list.result(v.time < t.fold)
		next.more = nil
		if len(changes) < len(list.changes) && c.reason != ReasonWork {
			next.reason, next.undoes = ReasonWork, 0
			v.hidden = false
		}
		step.known.forgetVersion(v.seq, changes)
		step.known.setVersion(&next)
		if step.index, err = t.u.d.appendCommit(&next); err != nil {
			return err
		}
	}
	t.batch = append(t.batch, step)
	size := 0
	for _, s := range t.batch {
		size += len(s.gone) + 1
	}
	if size >= thinBatch {
		return t.flush(false)
	}
	return nil
}

// flush commits what was gathered; the last time durably.
func (t *thinning) flush(last bool) error {
	d := t.u.d
	if len(t.batch) == 0 && !last {
		return nil
	}
	d.index.expect()
	err := d.commitUpkeep(last, t.take)
	var update indexUpdate
	for _, s := range t.batch {
		if err != nil || s.gone[0].keep != 0 && s.gone[0] != s.stays {
			continue
		}
		t.dropped += len(s.gone)
		if s.index != 0 {
			s.stays.index = s.index
		}
		update.join(&s.known)
	}
	t.batch = nil
	d.index.update(&update)
	return err
}

// take puts the records of a batch into the open layer. A step in which a
// version is in use now is left for another time. Under mu.
func (t *thinning) take() error {
	d := t.u.d
	now := d.clock()
	d.upkeep.pinsMu.Lock()
	defer d.upkeep.pinsMu.Unlock()
	t.batch = slices.DeleteFunc(t.batch, func(s thinStep) bool {
		busy := slices.ContainsFunc(s.gone, func(v *kept) bool { return d.upkeep.held(Version{d.writer, v.seq}, now) })
		for _, v := range s.gone {
			if busy {
				v.keep = AllClasses
			}
		}
		return busy
	})
	for _, s := range t.batch {
		for _, v := range s.gone {
			d.open.del(versionKey(Version{d.writer, v.seq}))
			d.snapshots.remove(Version{d.writer, v.seq})
		}
		if s.index != 0 {
			rec := versionRecord{index: s.index, time: s.stays.time, hidden: s.stays.hidden}
			d.open.put(versionKey(Version{d.writer, s.stays.seq}), rec.encode())
			d.snapshots.remove(Version{d.writer, s.stays.seq})
		}
	}
	return nil
}

// appendCommit appends a commit block that is no commit of the log: a version
// that is written once more.
func (d *Drive) appendCommit(c *commit) (uint64, error) {
	spill := func(p []byte) (uint64, error) { return d.appendBlock(seal.Commit, p) }
	plain, err := c.encode(spill)
	if err != nil {
		return 0, err
	}
	index, err := d.appendBlock(seal.Commit, plain)
	return index, noSpace(err)
}
