package replicate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"hearth/log"
)

const (
	// pullEntries is how many entries one request of a bulk transfer asks for
	// at most.
	pullEntries = 32
	// pullAgain is how long to wait after a request failed, pullFull after
	// something could not be stored, and pullIdle when there is nothing to ask for:
	// what changes that is told.
	pullAgain = 2 * time.Second
	pullIdle  = time.Minute
	pullFull  = 10 * time.Second
	// rareSamples is how many places are looked at for one that few peers have,
	// and rareSteps how far from each.
	rareSamples = 16
	rareSteps   = 64
	// pullSteps bounds the search of one call; the next goes on.
	pullSteps = 1 << 16
	// turnEntries are together one's turn. Who waits for another's is tired of it
	// after tiredTime, and looks again after swarmAgain.
	turnEntries = 4
	tiredTime   = 2 * time.Second
	swarmAgain  = 200 * time.Millisecond
	// aheadMost and aheadLeast bound what is read ahead, in entries.
	aheadMost  = 128
	aheadLeast = 4
)

// pull brings what is missing of the drives that are kept whole, from this
// peer, beside those that do the same with others.
func (s *session) pull() {
	p := puller{s: s, cursor: map[*log.Log]uint64{}, asked: time.Now()}
	timer := time.NewTimer(pullIdle)
	defer timer.Stop()
	for {
		changed := s.node.waitChange()
		wait := p.some()
		timer.Reset(wait)
		select {
		case <-changed:
		case <-s.pulled: // there is room again, or the peer has more
		case <-timer.C:
			if wait >= pullIdle {
				s.have.forgive()
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// puller is the bulk transfers from one peer. It belongs to one goroutine.
type puller struct {
	s      *session
	cursor map[*log.Log]uint64 // where the search in order goes on
	asked  time.Time           // for something, last
}

// some asks for as much as may be asked for, and returns when to try again.
func (p *puller) some() (wait time.Duration) {
	wait = pullIdle
	if rest := time.Until(time.Unix(0, max(p.s.node.full.Load(), p.s.rest.Load()))); rest > 0 {
		return rest
	}
	for _, k := range p.s.kept() {
		for p.s.ctx.Err() == nil {
			// What a person waits for comes first.
			share := int64(4)
			if p.s.waited.Load() > 0 {
				share = 1
			}
			room := p.s.window.room(share)
			if room <= 0 {
				return wait
			}
			// Small requests keep the answers flowing when the window is small.
			most := min(pullEntries, max(1, p.s.window.open()/4), room)
			mine, release, again := p.pick(k, most)
			if len(mine) == 0 {
				wait = min(wait, again)
				break
			}
			p.ask(k, mine, release)
		}
	}
	return wait
}

func (p *puller) ask(k kept, mine []uint64, release func()) {
	s := p.s
	p.asked = time.Now()
	s.window.asked(len(mine))
	s.wg.Go(func() {
		defer s.kick()
		defer s.window.answered(len(mine))
		defer release()
		ctx, cancel := context.WithTimeout(s.ctx, silentTime)
		defer cancel()
		err := s.get(ctx, s.bulk, k.log, mine)
		if errors.Is(err, errUnstored) {
			if s.node.full.Swap(time.Now().Add(pullFull).UnixNano()) < time.Now().UnixNano() {
				s.node.logger.Error("a drive is not copied on", "drive", k.name.drive, "err", err)
			}
			return
		}
		missing := slices.DeleteFunc(mine, k.log.Holds)
		if len(missing) == 0 {
			return
		}
		if err == nil {
			s.have.lacks(k.name, missing)
		} else {
			s.rest.Store(time.Now().Add(pullAgain).UnixNano())
			s.node.logger.Debug("a bulk request failed", "peer", s.conn.Peer(), "err", err)
		}
	})
}

// kick has the puller look again.
func (s *session) kick() {
	select {
	case s.pulled <- struct{}{}:
	default:
	}
}

// kept is a replica that is to be whole.
type kept struct {
	name logName
	d    *shared
	log  *log.Log
}

func (s *session) kept() []kept {
	var all []kept
	for _, d := range s.node.allShared() {
		if !s.shares(d.id) {
			continue
		}
		store, _, keep := d.state()
		if store == nil || !keep {
			continue
		}
		for w, l := range store.Logs() {
			name := logName{d.id, w}
			if l.IsReplica() && s.astray(name) == doubtNone {
				all = append(all, kept{name, d, l})
			}
		}
	}
	return all
}

// pick claims up to most entries that are missing and that the peer has: the
// rarest while others copy the drive, too, so that they can give each other
// what they got, and else the next in order. When all are asked for, those
// that another peer is late with are asked for a second time. Without entries
// it says when to try again.
func (p *puller) pick(k kept, most int) (mine []uint64, release func(), again time.Duration) {
	first, n, swarm := p.rarest(k, most)
	if n > 0 {
		if mine, release = k.d.claimRun(k, p.s, first, n); len(mine) > 0 {
			return mine, release, 0
		}
	}
	if swarm == swarmWait {
		return nil, nil, swarmAgain
	}
	mine, release, more := p.next(k, most)
	switch {
	case len(mine) > 0:
		return mine, release, 0
	case more:
		return nil, nil, time.Millisecond
	}
	return k.d.claimLate(k, p.s, most)
}

// What rarest found.
type swarm int

const (
	swarmNone swarm = iota // nobody else copies the drive, or there is nothing left
	swarmSome
	swarmWait // all that this peer should be asked for is asked for
)

// rarest samples the missing entries for those that the fewest peers have. It
// finds none while all peers are whole, and order is better.
//
// What only this peer has, each of those who copy the drive should get a part
// of, and not the same: an entry is the turn of whom a hash of it and the
// device's key chooses. The others get it from there, which leaves the first
// one's path for what nobody else has.
func (p *puller) rarest(k kept, most int) (first uint64, n int, found swarm) {
	size := k.log.Head().Size
	peers := k.d.node.sharing(k.d.id)
	var others []*session // who copy it, too
	alone := true
	for _, o := range peers {
		if o != p.s && o.have.count(k.name, size) < size {
			alone = false
			if o.have.growing(k.name) {
				others = append(others, o)
			}
		}
	}
	if size == 0 || alone {
		return 0, 0, swarmNone
	}
	tired := time.Since(p.asked) > tiredTime
	fewest, only := len(peers)+1, false
	for range rareSamples {
		i := rand.Uint64N(size)
		for range rareSteps {
			var n uint64
			if i, n = k.log.NextMissing(i, 1); n == 0 || i >= size {
				break
			}
			if !p.s.have.has(k.name, i) || k.d.flying(k.log, i) {
				i++
				continue
			}
			count := 0
			for _, o := range peers {
				if o.have.has(k.name, i) {
					count++
				}
			}
			only = only || count == 1
			if count == 1 && !tired && !p.turn(k, i, others) {
				i = i/turnEntries*turnEntries + turnEntries
				continue
			}
			if count < fewest {
				first, fewest = i, count
			}
			break
		}
	}
	switch {
	case fewest > len(peers) && !only:
		return 0, 0, swarmNone
	case fewest > len(peers), only && fewest > 1 && !tired:
		return 0, 0, swarmWait
	}
	return first, min(most, int(turnEntries-first%turnEntries)), swarmSome
}

// turn reports whether it is this device's turn to get an entry.
func (p *puller) turn(k kept, index uint64, others []*session) bool {
	weight := func(key [32]byte) uint64 {
		var b [32 + 32 + 8]byte
		copy(b[:], key[:])
		copy(b[32:], k.name.drive[:])
		binary.BigEndian.PutUint64(b[64:], index/turnEntries)
		sum := sha256.Sum256(b[:])
		return binary.BigEndian.Uint64(sum[:])
	}
	own := weight(k.d.node.Key())
	return !slices.ContainsFunc(others, func(o *session) bool { return weight(o.conn.Peer()) > own })
}

// next claims the next missing entries in order; more says that the search was
// cut short and the cursor moved.
func (p *puller) next(k kept, most int) (mine []uint64, release func(), more bool) {
	at := p.cursor[k.log]
	begun, wrapped := at, false
	for range pullSteps {
		first, n := k.log.NextMissing(at, uint64(most))
		if n == 0 {
			if wrapped || begun == 0 {
				p.cursor[k.log] = 0
				return nil, nil, false
			}
			at, wrapped = 0, true
			continue
		}
		if wrapped && first >= begun {
			p.cursor[k.log] = 0
			return nil, nil, false
		}
		at = first + n
		if mine, release = k.d.claimRun(k, p.s, first, int(n)); len(mine) > 0 {
			p.cursor[k.log] = mine[len(mine)-1] + 1
			return mine, release, false
		}
	}
	p.cursor[k.log] = at
	return nil, nil, true
}

// claimRun claims what is missing and the peer has among n entries.
func (d *shared) claimRun(k kept, s *session, first uint64, n int) (mine []uint64, release func()) {
	all := make([]uint64, 0, n)
	for i := first; i < first+uint64(n); i++ {
		if s.have.has(k.name, i) {
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	mine, _, release = d.claim(k.log, all, s)
	return mine, release
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
	// On a slow path what is read ahead must not hold up what is read next.
	most := uint64(aheadMost)
	if peers := d.node.sharing(d.id); len(peers) > 0 {
		most = min(most, uint64(max(peers[0].window.open(), aheadLeast)))
	}
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
	a.window = min(max(2*a.window, 8), most)
	a.next = last + 1
	from := max(a.next, a.edge)
	to := min(a.next+a.window, l.Head().Size)
	a.edge = max(a.edge, to)
	d.mu.Unlock()
	name := logName{d.id, l.Writer()}
	for from < to {
		n := min(to-from, pullEntries, max(most/4, 1))
		var all []uint64
		for i := from; i < from+n; i++ {
			all = append(all, i)
		}
		from += n
		peers := d.sources(name, all)
		if len(peers) == 0 {
			return
		}
		s := peers[0]
		mine, _, release := d.claim(l, all, s)
		if len(mine) == 0 {
			release()
			continue
		}
		s.inFlight.Add(int64(len(mine))) // so that the next goes to another
		d.node.wg.Go(func() {
			defer s.inFlight.Add(-int64(len(mine)))
			defer release()
			ctx, cancel := context.WithTimeout(d.node.life, answerTime)
			defer cancel()
			_ = s.get(ctx, s.bulk, l, mine) // whoever needs it asks again
		})
	}
}
