package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// How a replica gives space back.
//
// An evicted block is one that never arrived: its location is cleared, and it
// can be had again. The order of the steps:
//
//  1. The locations are cleared, in memory and then on disk, together with a
//     record that says that nothing before the end has to be searched for
//     frames. From here on the frames are waste.
//  2. Segments that are mostly waste are given up: what is wanted of them is
//     written once more at the end of the log and settled there, and the file
//     is removed. Into the others holes are punched.
//
// After a crash in between the blocks are still here, or their space is still
// taken, which the next eviction makes good: what is waste is not remembered,
// but what no location names. If the locations are lost, all segments are
// searched; what is found is whole, or was punched and is not found.
//
// Who reads while this goes on has a location that was good a moment ago. A
// file that was removed is read to the end; a hole looks like damage, and is
// none if the location has changed since: see vanished.

// errWritten is the error of evicting from a log that this device writes.
var errWritten = errors.New("this device writes the log")

// sweptSegments is how many segments are looked at together: each time, all
// locations are passed.
const sweptSegments = 64

// openEvictReserve keeps as much space back as settling may take.
func (l *Log) openEvictReserve() (err error) {
	l.reserve, err = newReserve(l.disk, filepath.Join(l.dir, "reserve"), l.dir, int64(l.limits.flush)+64<<10)
	return err
}

// Evict makes blocks of a replica such that are not here, as if they had never
// arrived, and frees their space where that is worth it: see [Log.Reclaim].
// That somebody else has them is the caller's matter. Numbers of control
// entries, and of what is not here, are passed over. It returns by how much the
// segment files became smaller, also beside an error: then the blocks are gone,
// and the next call frees the rest.
func (l *Log) Evict(ctx context.Context, set *roaring64.Bitmap) (freed int64, err error) {
	if !l.replica {
		return 0, fmt.Errorf("evicting from %s: %w", l.dir, errWritten)
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	if err := l.usable(); err != nil {
		return 0, err
	}
	before, err := l.Bytes()
	if err != nil {
		return 0, err
	}
	l.letGo(set)
	err = l.settleEvicted()
	if err == nil {
		err = l.giveBack(ctx)
	}
	l.reserve.restore()
	after, errAfter := l.Bytes()
	if err = errors.Join(err, errAfter); err != nil {
		err = fmt.Errorf("evicting from %s: %w", l.dir, err)
	}
	return max(before-after, 0), err
}

// letGo clears the locations of blocks.
func (l *Log) letGo(set *roaring64.Bitmap) {
	forRanges(set, func(start, n uint64) {
		for end := start + n; start < end; {
			l.mu.Lock()
			end = min(end, l.next)
			l.whole.Store(min(l.whole.Load(), start))
			for range 4096 { // readers wait for no more
				if start >= end {
					break
				}
				if l.locs.get(start).isBlock() {
					l.locs.set(start, 0)
				}
				start++
			}
			l.mu.Unlock()
		}
	})
	l.present.Add(1)
}

// settleEvicted makes durable what the locations say, on a full disk with the
// help of the reserve. Nothing may be freed before.
func (l *Log) settleEvicted() error {
	l.markMu.Lock()
	defer l.markMu.Unlock()
	l.locsStale = true
	return l.settleForSpace()
}

// placed is an entry that is here.
type placed struct {
	index uint64
	loc   location
}

// swept is a segment that has waste.
type swept struct {
	num     uint32
	live    int64 // bytes of frames that are wanted
	end     int64 // where the frames end
	tail    bool
	entries []placed // that are wanted, by place
}

// giveBack frees what no location names. With spaceMu held, so that locations
// change only for entries that arrive.
func (l *Log) giveBack(ctx context.Context) error {
	all, err := l.wasteful()
	if err != nil {
		return err
	}
	if n := len(all); n > 0 && all[n-1].tail && l.mostlyWaste(all[n-1]) {
		if err := l.leaveTail(all[n-1]); err != nil && !isFull(err) { // on a full disk holes will do
			return err
		}
	}
	// First those that give most for least: they make room for the others.
	slices.SortFunc(all, func(a, b *swept) int { return cmp.Compare(a.live, b.live) })
	for part := range slices.Chunk(all, sweptSegments) {
		l.wantedOf(part)
		for _, s := range part {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := l.giveBackSegment(ctx, s); err != nil {
				return fmt.Errorf("segment %d: %w", s.num, err)
			}
		}
	}
	return nil
}

// wasteful returns the segments that have waste, the tail last.
func (l *Log) wasteful() ([]*swept, error) {
	l.mu.RLock()
	end := position{l.tailNum, l.pendOff} // what arrives from here on is not looked at
	l.mu.RUnlock()
	live := map[uint32]int64{}
	l.eachPlaced(end, func(p placed) { live[p.loc.segment()] += frameSize(int(p.loc.length())) })
	names, err := l.disk.List(l.segs.dir)
	if err != nil {
		return nil, err
	}
	var all []*swept
	for _, name := range names {
		num, ok := parseSegmentName(name)
		if !ok || num > end.segment {
			continue
		}
		s := &swept{num: num, live: live[num], tail: num == end.segment, end: end.offset}
		if !s.tail {
			info, err := l.disk.Stat(l.segs.path(num))
			if err != nil {
				return nil, err
			}
			s.end = info.Size()
		}
		if s.live == 0 && !s.tail || s.waste() >= punchFrame && l.punched[num] != s.waste() {
			all = append(all, s)
		}
	}
	return all, nil
}

func (s *swept) waste() int64 { return s.end - segmentHeader - s.live }

// mostlyWaste reports whether a segment is worth being given up. The last one
// becomes a file of its own by that, so it has to be some.
func (l *Log) mostlyWaste(s *swept) bool {
	return s.waste() > s.live && (!s.tail || s.waste() >= l.limits.rollDead)
}

// eachPlaced calls fn for every entry that is here before end.
func (l *Log) eachPlaced(end position, fn func(placed)) {
	for page := 0; ; page++ {
		l.mu.RLock()
		if page >= len(l.locs.pages) {
			l.mu.RUnlock()
			return
		}
		for i, loc := range l.locs.pages[page] {
			if loc != 0 && (position{loc.segment(), loc.offset()}).before(end) {
				fn(placed{uint64(page)*locsPerPage + uint64(i), loc})
			}
		}
		l.mu.RUnlock()
	}
}

// wantedOf finds the entries of segments.
func (l *Log) wantedOf(part []*swept) {
	by := make(map[uint32]*swept, len(part))
	for _, s := range part {
		by[s.num] = s
	}
	l.eachPlaced(position{maxSegments, 0}, func(p placed) {
		if s := by[p.loc.segment()]; s != nil && p.loc.offset() < s.end {
			s.entries = append(s.entries, p)
		}
	})
	for _, s := range part {
		slices.SortFunc(s.entries, func(a, b placed) int { return cmp.Compare(a.loc.offset(), b.loc.offset()) })
	}
}

// leaveTail begins a new segment.
func (l *Log) leaveTail(s *swept) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.tail.num == s.num {
		if err := l.flush(false); err != nil {
			return err
		}
		s.end = l.pendOff // something may have arrived
		if err := l.rollover(false); err != nil {
			return err
		}
	}
	s.tail = false
	return nil
}

func (l *Log) giveBackSegment(ctx context.Context, s *swept) error {
	if !s.tail && l.mostlyWaste(s) {
		moved, err := l.moveAll(ctx, s)
		// Where something was moved to is durable before it is lost here.
		if moved > 0 {
			if errSettle := l.settleEvicted(); errSettle != nil {
				return errors.Join(err, errSettle)
			}
		}
		if err == nil {
			return l.removeSegment(s.num)
		}
		if !isFull(err) {
			return err
		}
		s.entries = s.entries[moved:]
	}
	return l.punchWaste(ctx, s)
}

// moveAll writes what is wanted of a segment once more at the end of the log,
// and returns how many entries it got to.
func (l *Log) moveAll(ctx context.Context, s *swept) (moved int, err error) {
	b := getBuffer(0)
	defer putBuffer(b)
	for i, p := range s.entries {
		if ctx.Err() != nil {
			return i, context.Cause(ctx)
		}
		f, buf, _, err := l.readFrame((*b)[:0], p.index)
		*b = buf
		var damage *DamageError
		switch {
		case err == nil && f.intact(buf[frameHeader:]):
			err = l.move(p, &f, buf[frameHeader:])
		case err == nil:
			damage = l.damage(p.index, p.loc, "its contents do not match its digest")
		case !errors.As(err, &damage):
			return i, err
		}
		if damage != nil {
			l.health.note(damage.Damage)
			l.forget(p.index) // it can be had again
			continue
		}
		if err != nil {
			return i, err
		}
	}
	return len(s.entries), nil
}

// move writes the frame of an entry once more.
func (l *Log) move(p placed, f *frame, body []byte) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.makeRoom(false); err != nil {
		return err
	}
	buf := f.appendTo(l.pend, body)
	loc := makeLocation(p.loc.kind(), l.tail.num, l.pendOff+int64(len(l.pend)), f.length)
	l.mu.Lock()
	l.locs.set(p.index, loc)
	l.pend = buf
	l.mu.Unlock()
	return nil
}

// removeSegment removes a segment that no location names. Who reads it goes on.
func (l *Log) removeSegment(num uint32) error {
	l.segs.forget(num)
	delete(l.punched, num)
	if err := l.disk.Remove(l.segs.path(num)); err != nil {
		return err
	}
	return l.disk.SyncDir(filepath.Dir(l.segs.path(num)))
}

// punchWaste punches holes between the frames that are wanted.
func (l *Log) punchWaste(ctx context.Context, s *swept) error {
	seg, err := l.segs.get(s.num)
	if err != nil {
		return err
	}
	defer l.segs.put(seg)
	from := int64(segmentHeader)
	punch := func(to int64) error {
		first, last := (from+pageSize-1)&^(pageSize-1), to&^(pageSize-1)
		if last-first < punchFrame {
			return nil
		}
		return seg.file.PunchHole(first, last-first)
	}
	for _, p := range s.entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := punch(p.loc.offset()); err != nil {
			return err
		}
		from = p.loc.offset() + frameSize(int(p.loc.length()))
	}
	if err := punch(s.end); err != nil {
		return err
	}
	l.punched[s.num] = s.waste()
	return nil
}

// vanished turns the error about a frame that was read where loc says into
// ErrMissing, if the entry is not there any more.
func (l *Log) vanished(index uint64, loc location, err error) error {
	var damage *DamageError
	if !l.replica || !errors.As(err, &damage) {
		return err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.locs.get(index) == loc {
		return err
	}
	return l.missing(index)
}

// again reports whether slices should be read once more: what an error is about
// is somewhere else, or not here, by now.
func (l *Log) again(err error) bool {
	if errors.Is(err, ErrMissing) {
		return true
	}
	var damage *DamageError
	if !errors.As(err, &damage) {
		return false
	}
	l.mu.RLock()
	loc := l.locs.get(damage.Index)
	l.mu.RUnlock()
	return loc == 0 || loc.segment() != damage.Segment || loc.offset() != damage.Offset
}

// Held returns how many of the entries [first, first+n) are on this device: see
// [Log.Holds].
func (l *Log) Held(first, n uint64) (held uint64) {
	for end := first + n; first < end; {
		l.mu.RLock()
		end = min(end, l.next)
		for range 4096 {
			if first >= end {
				break
			}
			if l.holds(first) {
				held++
			}
			first++
		}
		l.mu.RUnlock()
	}
	return held
}

// Presence returns a number that changes when an entry of a replica has arrived
// or is not here any more.
func (l *Log) Presence() uint64 { return l.present.Load() }
