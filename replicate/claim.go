package replicate

import (
	"slices"
	"sync"
	"time"

	"hearth/log"
)

// logIndex names an entry in flight.
type logIndex struct {
	log   *log.Log
	index uint64
}

// flight is entries that somebody is getting.
type flight struct {
	done  chan struct{}
	by    *session // whom they were asked of; nil: whoever is fastest
	since time.Time
	again map[uint64]struct{} // what another peer was asked for, too
}

// claim says that the caller will get those of the entries that nobody is
// getting, and returns them, and what to wait for to have the others. release
// ends it; to call it again does nothing.
func (d *shared) claim(l *log.Log, indexes []uint64, by *session) (mine []uint64, others []chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &flight{done: make(chan struct{}), by: by, since: time.Now()}
	for _, i := range indexes {
		if l.Holds(i) {
			continue
		}
		if o := d.flights[logIndex{l, i}]; o != nil {
			if !slices.Contains(others, o.done) {
				others = append(others, o.done)
			}
			continue
		}
		d.flights[logIndex{l, i}] = f
		mine = append(mine, i)
	}
	claimed := slices.Clone(mine)
	return mine, others, sync.OnceFunc(func() {
		d.mu.Lock()
		for _, i := range claimed {
			delete(d.flights, logIndex{l, i})
		}
		d.mu.Unlock()
		close(f.done)
		if !slices.ContainsFunc(claimed, func(i uint64) bool { return !l.Holds(i) }) {
			return
		}
		d.node.change() // somebody else may try
	})
}

// flying reports whether somebody is getting an entry.
func (d *shared) flying(l *log.Log, index uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flights[logIndex{l, index}] != nil
}

// claimLate returns entries that this peer has and another is late with, to be
// asked for a second time, or when there may be some.
func (d *shared) claimLate(k kept, s *session, most int) (mine []uint64, release func(), again time.Duration) {
	again = pullIdle
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, f := range d.flights {
		if at.log != k.log || f.by == nil || f.by == s || !s.have.has(k.name, at.index) {
			continue
		}
		if _, asked := f.again[at.index]; asked {
			continue
		}
		if left := f.by.window.late(f.by.conn.RTT()) - time.Since(f.since); left > 0 {
			again = min(again, left)
			continue
		}
		if !k.log.Holds(at.index) {
			mine = append(mine, at.index)
		}
		if len(mine) == most {
			break
		}
	}
	for _, i := range mine {
		f := d.flights[logIndex{k.log, i}]
		if f.again == nil {
			f.again = map[uint64]struct{}{}
		}
		f.again[i] = struct{}{}
	}
	slices.Sort(mine)
	return mine, func() {}, again
}
