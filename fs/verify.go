package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
)

// Damage is something that is not as it was written, or does not fit what
// else is there.
type Damage struct {
	Path    string  // of what is affected, if that is known
	Version Version // the newest version that is; the zero value if it is none
	Block   string  // "writer:number" of the damaged block, if it is one
	Problem string
}

// Verified says what a verification looked at.
type Verified struct {
	Versions int64
	Blocks   int64
	Bytes    int64
	Dropped  int64 // blocks that were dropped on purpose: no damage
}

// Verify checks all of a drive: every hash and signature of its logs, every
// page of every version, that every extent's block is there or was dropped on
// purpose, and that names, inodes, links and sizes of every version fit
// together. It reports each damage once, with the newest version that shows
// it. progress, which may be nil, is called with blocks checked. Programs go
// on meanwhile; upkeep waits.
func (d *Drive) Verify(ctx context.Context, report func(Damage), progress func(done, total int64)) (Verified, error) {
	release, err := d.exclusive(ctx)
	if err != nil {
		return Verified{}, err
	}
	defer release()
	if err := d.Sync(ctx); err != nil {
		return Verified{}, err
	}
	v := &verifier{
		d: d, report: report, progress: progress, cache: tree.NewCache(upkeepCache),
		bad: map[log.Ref]string{}, dropped: map[log.Writer]*roaring64.Bitmap{},
		pages: roaring64.New(), told: map[string]struct{}{}, met: map[string]struct{}{},
	}
	if err := v.run(ctx); err != nil {
		return v.sum, fmt.Errorf("verifying drive %s: %w", d.store.ID(), err)
	}
	return v.sum, nil
}

// verifier is one run of Verify.
type verifier struct {
	d        *Drive
	report   func(Damage)
	progress func(done, total int64)
	cache    *tree.Cache
	sum      Verified
	bad      map[log.Ref]string // blocks found damaged, and how
	dropped  map[log.Writer]*roaring64.Bitmap
	pages    *roaring64.Bitmap   // that were looked at, see pageNumber
	told     map[string]struct{} // damage that was reported
	met      map[string]struct{} // blocks that it names
}

// maxTold bounds how much reported damage is remembered.
const maxTold = 1 << 16

// tell reports damage that was not reported yet.
func (v *verifier) tell(d Damage) {
	v.met[d.Block] = struct{}{}
	key := d.Block + "\x00" + d.Path + "\x00" + d.Problem
	if _, ok := v.told[key]; ok {
		return
	}
	if len(v.told) < maxTold {
		v.told[key] = struct{}{}
	}
	v.report(d)
}

func (v *verifier) run(ctx context.Context) error {
	if err := v.logs(ctx); err != nil {
		return err
	}
	head := v.d.newest()
	records, err := v.records(ctx, head)
	if err != nil {
		return err
	}
	if err := v.tags(head, records); err != nil {
		return err
	}
	// Newest first, so that damage is told with the newest version.
	var last *view // the state checked before, of a newer version
	for i := range records {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := &records[i]
		c, err := v.d.readCommit(log.Ref{Writer: v.d.writer, Index: rec.index})
		if err == nil && c.seq != rec.seq {
			err = fmt.Errorf("it holds version %d", c.seq)
		}
		if err == nil {
			_, err = v.d.allChanges(v.d.writer, c)
		}
		if err != nil {
			v.tell(Damage{Version: rec.version(v.d), Block: log.Ref{Writer: v.d.writer, Index: rec.index}.String(), Problem: "a version cannot be read: " + err.Error()})
			continue
		}
		v.sum.Versions++
		state := &view{[]*layer{layerOf(c.buffer)}, tree.New(&v.d.pages, v.cache, c.root)}
		s := &stateCheck{verifier: v, at: rec.version(v.d), state: state, newest: i == 0, commit: c}
		whole, err := s.content(ctx)
		if err != nil {
			return err
		}
		if !whole {
			last = nil // what is damaged is told; what hangs on it cannot be checked
			continue
		}
		if err := s.structure(ctx, last); err != nil {
			return err
		}
		last = state
	}
	for ref, how := range v.bad {
		if _, ok := v.met[ref.String()]; !ok {
			v.tell(Damage{Block: ref.String(), Problem: how})
		}
	}
	return nil
}

// tags checks that tags name versions there are.
func (v *verifier) tags(head version, records []verifyRecord) error {
	tagged, err := taggedVersions(v.d.snapshotOf(head).v)
	if err != nil {
		if !isDamage(err) {
			return err
		}
		v.tell(Damage{Version: Version{v.d.writer, head.seq}, Problem: "the tags cannot be read: " + err.Error()})
		return nil
	}
	for t := range tagged {
		if !slices.ContainsFunc(records, func(r verifyRecord) bool { return r.version(v.d) == t }) {
			v.tell(Damage{Version: t, Problem: "a version with a tag is not there"})
		}
	}
	return nil
}

// verifyRecord is a version by its record.
type verifyRecord struct{ seq, index uint64 }

func (r verifyRecord) version(d *Drive) Version { return Version{d.writer, r.seq} }

// records lists the versions, newest first.
func (v *verifier) records(ctx context.Context, head version) ([]verifyRecord, error) {
	var out []verifyRecord
	state := v.d.snapshotOf(head).v
	it := state.scan(kindRange(0, kindVersion))
	for it.next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, err := decodeVersionRecord(it.value)
		at := keyVersion(it.key)
		if err != nil || at.Writer != v.d.writer {
			v.tell(Damage{Version: at, Problem: fmt.Sprintf("the record of a version cannot be read: %v", err)})
			continue
		}
		out = append(out, verifyRecord{at.Seq, rec.index})
	}
	if it.err != nil {
		v.tell(Damage{Version: Version{v.d.writer, head.seq}, Problem: "the versions cannot all be listed: " + it.err.Error()})
	}
	out = append(out, verifyRecord{head.seq, head.index})
	slices.Reverse(out)
	return out, nil
}

// logs checks the blocks as the logs know them.
func (v *verifier) logs(ctx context.Context) error {
	logs := v.d.store.Logs()
	var total, before int64
	for _, l := range logs {
		total += int64(l.Size())
	}
	for w, l := range logs {
		v.dropped[w] = l.Dropped()
		v.sum.Blocks += int64(l.Size())
		v.sum.Dropped += int64(v.dropped[w].GetCardinality())
		bytes, err := l.Bytes()
		if err != nil {
			return err
		}
		v.sum.Bytes += bytes
		size := int64(l.Size())
		err = l.Verify(ctx, func(dm log.Damage) {
			if dm.Index == log.NoEntry {
				v.tell(Damage{Problem: dm.String()})
				return
			}
			v.bad[log.Ref{Writer: dm.Writer, Index: dm.Index}] = dm.String()
		}, func(done, all int64) {
			if v.progress != nil && all > 0 {
				v.progress(before+size*done/all, total)
			}
		})
		if err != nil {
			return err
		}
		before += size
	}
	return nil
}

// isDropped reports whether a block was dropped on purpose.
func (v *verifier) isDropped(ref log.Ref) bool {
	set := v.dropped[ref.Writer]
	return set != nil && set.Contains(ref.Index)
}

// problem says what is wrong with the block that a record refers to, if
// anything is.
func (v *verifier) problem(ref log.Ref, newest bool) (string, bool) {
	l, err := v.d.store.Log(ref.Writer)
	switch {
	case err != nil:
		return err.Error(), true
	case ref.Index >= l.Size():
		return fmt.Sprintf("block %v is not in the log, which has %d", ref, l.Size()), true
	case l.IsControl(ref.Index):
		return fmt.Sprintf("block %v holds no contents", ref), true
	case v.isDropped(ref):
		return fmt.Sprintf("block %v was dropped, but is in use", ref), newest
	}
	how, bad := v.bad[ref]
	return how, bad
}

// isDamage reports whether an error of reading a state is about stored data,
// rather than about being able to check it.
func isDamage(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, log.ErrDamaged) || errors.Is(err, tree.ErrDamaged) ||
		errors.Is(err, log.ErrDropped) || errors.Is(err, log.ErrAbsent)
}
