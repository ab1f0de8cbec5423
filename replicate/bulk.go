package replicate

import (
	"context"
	"slices"
	"time"

	"hearth/log"
)

const (
	// pullEntries is how many entries one request of a bulk transfer asks for.
	pullEntries = 32
	// pullDepth is how many such requests a peer has at a time.
	pullDepth = 6
	// aheadMost bounds what is read ahead, in entries.
	aheadMost = 128
	// pullAgain is how long to wait when a peer has nothing that is missing.
	pullAgain = 2 * time.Second
)

// pull brings what is missing of the drives that are kept whole, from this
// peer, beside those that do the same with others.
func (s *session) pull() {
	slots := make(chan struct{}, pullDepth)
	failed := map[*log.Log]uint64{} // up to where this peer had nothing
	for {
		changed := s.node.waitChange()
		if !s.pullSome(slots, failed) {
			timer := time.NewTimer(pullAgain)
			select {
			case <-changed:
			case <-timer.C:
				clear(failed)
			case <-s.ctx.Done():
			}
			timer.Stop()
		}
		if s.ctx.Err() != nil {
			for range pullDepth { // the last ones end with the connection
				slots <- struct{}{}
			}
			return
		}
	}
}

// pullSome asks for more until there is nothing to ask for.
func (s *session) pullSome(slots chan struct{}, from map[*log.Log]uint64) (some bool) {
	for _, l := range s.kept() {
		d := s.node.shared(s.nameOf(l).drive)
		if d == nil {
			continue
		}
		for s.ctx.Err() == nil {
			select {
			case slots <- struct{}{}:
			case <-s.ctx.Done():
				return some
			}
			mine, next, release := d.claimMissing(l, from[l])
			from[l] = next
			if len(mine) == 0 {
				release()
				<-slots
				break
			}
			some = true
			s.wg.Go(func() {
				defer func() { <-slots }()
				defer release()
				ctx, cancel := context.WithTimeout(s.ctx, silentTime)
				defer cancel()
				if err := s.get(ctx, s.bulk, l, mine); err != nil && s.ctx.Err() == nil {
					s.node.logger.Debug("a bulk request failed", "peer", s.conn.Peer(), "err", err)
				}
			})
		}
	}
	return some
}

// kept are the replicas that are to be whole.
func (s *session) kept() []*log.Log {
	s.mu.Lock()
	var ids []log.DriveID
	for id := range s.drives {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	var all []*log.Log
	for _, id := range ids {
		d := s.node.shared(id)
		if d == nil {
			continue
		}
		store, _, keep := d.state()
		if store == nil || !keep {
			continue
		}
		for _, l := range store.Logs() {
			if l.IsReplica() && s.astray(logName{id, l.Writer()}) == doubtNone {
				all = append(all, l)
			}
		}
	}
	return all
}

// claimMissing claims the next missing entries from an index on, and returns
// where to go on after them.
func (d *shared) claimMissing(l *log.Log, from uint64) (mine []uint64, next uint64, release func()) {
	next = from
	for {
		first, n := l.NextMissing(next, pullEntries)
		if n == 0 {
			return nil, next, func() {}
		}
		next = first + n
		all := make([]uint64, 0, n)
		for i := first; i < next; i++ {
			all = append(all, i)
		}
		if mine, _, release = d.claim(l, all); len(mine) > 0 {
			return mine, next, release
		}
		release()
	}
}

// ahead is what is read ahead of a sequential reader.
type ahead struct {
	next   uint64 // the entry that would go on
	window uint64
	edge   uint64 // up to which it was asked for
}

// readAhead asks for what follows, when reads go on where the last one ended:
// contents that were written one after the other are so in the log.
func (d *shared) readAhead(l *log.Log, indexes []uint64) {
	first, last := slices.Min(indexes), slices.Max(indexes)
	d.mu.Lock()
	a := d.aheads[l]
	if a == nil {
		a = &ahead{}
		d.aheads[l] = a
	}
	sequential := first >= a.next && first-a.next <= a.window+8 && a.next > 0
	if !sequential {
		*a = ahead{next: last + 1}
		d.mu.Unlock()
		return
	}
	a.window = min(max(2*a.window, 8), aheadMost)
	a.next = last + 1
	from := max(a.next, a.edge)
	to := min(a.next+a.window, l.Head().Size)
	a.edge = max(a.edge, to)
	d.mu.Unlock()
	for from < to {
		n := min(to-from, pullEntries)
		var all []uint64
		for i := from; i < from+n; i++ {
			all = append(all, i)
		}
		from += n
		mine, _, release := d.claim(l, all)
		peers := d.node.sharing(d.id)
		if len(mine) == 0 || len(peers) == 0 {
			release()
			continue
		}
		d.node.wg.Go(func() {
			defer release()
			ctx, cancel := context.WithTimeout(d.node.life, answerTime)
			defer cancel()
			_ = peers[0].get(ctx, peers[0].bulk, l, mine) // whoever needs it asks again
		})
	}
}
