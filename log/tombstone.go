package log

import (
	"cmp"
	"slices"

	"hearth/log/disk"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// What others have dropped.
//
// A replica honours the Dropped control entries that count: the blocks they
// name read as ErrDropped, are missing no more, and their bytes are overwritten
// where they lie. The control entries are in the replica themselves and are the
// authority, so there is no record beside them: when a store is opened they
// say again what is dropped, and what a crash left of it is overwritten then.

// declareDropped takes in what control entries say was dropped. The bytes are
// overwritten in the background.
func (l *Log) declareDropped(set *roaring64.Bitmap) {
	if !l.replica || set.IsEmpty() {
		return
	}
	set = set.Clone()
	for _, index := range l.controls() {
		set.Remove(index) // nobody can drop these
	}
	l.mu.Lock()
	l.dropped = roaring64.Or(l.dropped, set)
	l.dropped.RunOptimize()
	l.mu.Unlock()
	l.wipeDue.Store(true)
	if l.inline {
		l.housekeep()
		return
	}
	select {
	case l.kick <- struct{}{}:
	default: // it is on its way already
	}
}

// deadFrame is the frame of a dropped block.
type deadFrame struct {
	index uint64
	loc   location
}

// deadFrames returns the frames of dropped blocks, in the order of their
// places.
func (l *Log) deadFrames() []deadFrame {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var dead []deadFrame
	for page, locs := range l.locs.pages {
		for i, loc := range locs {
			index := uint64(page)*locsPerPage + uint64(i)
			if loc.isBlock() && l.dropped.Contains(index) {
				dead = append(dead, deadFrame{index, loc})
			}
		}
	}
	slices.SortFunc(dead, func(a, b deadFrame) int {
		return cmp.Or(cmp.Compare(a.loc.segment(), b.loc.segment()), cmp.Compare(a.loc.offset(), b.loc.offset()))
	})
	return dead
}

// wipeDropped overwrites the frames of dropped blocks of a replica, and
// forgets where they were. Who said that they were dropped is durable before.
// It ends early, without an error, when the log is closed.
func (l *Log) wipeDropped() error {
	dead := l.deadFrames()
	if len(dead) == 0 {
		return nil
	}
	if err := l.Settle(); err != nil {
		return err
	}
	for len(dead) > 0 {
		n := 1
		for n < len(dead) && dead[n].loc.segment() == dead[0].loc.segment() {
			n++
		}
		wiped, err := l.wipeFrames(dead[:n])
		if err != nil {
			return err
		}
		l.mu.Lock()
		for _, d := range dead[:wiped] {
			if l.locs.get(d.index) == d.loc {
				l.locs.set(d.index, 0)
			}
		}
		l.mu.Unlock()
		if wiped < n {
			break // it goes on when the log is opened again
		}
		dead = dead[n:]
	}
	l.markMu.Lock()
	l.locsStale = true
	l.markMu.Unlock()
	return l.Settle()
}

// wipeFrames overwrites frames of one segment, durably, and returns how many.
func (l *Log) wipeFrames(dead []deadFrame) (int, error) {
	seg, err := l.segs.get(dead[0].loc.segment())
	if err != nil {
		return 0, err
	}
	defer l.segs.put(seg)
	w := wiper{file: seg.file}
	n := 0
	for ; n < len(dead) && l.life.Err() == nil; n++ {
		if err := w.wipe(dead[n].loc); err != nil {
			return 0, err
		}
	}
	return n, seg.file.Datasync()
}

// wiper overwrites the bodies of frames with zeros: it needs no space.
type wiper struct {
	file  disk.File
	zeros []byte
}

func (w *wiper) wipe(loc location) error {
	from := loc.offset() + frameHeader
	to := from + int64(loc.length())
	in, out := (from+pageSize-1)&^(pageSize-1), to&^(pageSize-1)
	if out > in {
		if err := w.file.PunchHole(in, out-in); err != nil {
			return err
		}
	} else {
		in, out = to, to
	}
	for _, edge := range [][2]int64{{from, in}, {out, to}} {
		n := int(edge[1] - edge[0])
		if n == 0 {
			continue
		}
		if len(w.zeros) < n {
			w.zeros = make([]byte, max(n, 2*pageSize))
		}
		if _, err := w.file.WriteAt(w.zeros[:n], edge[0]); err != nil {
			return err
		}
	}
	return nil
}
