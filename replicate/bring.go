package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hearth/fs"
	"hearth/log"
	"hearth/replicate/peer"
)

const (
	// bringEntries is how many entries one request of Bring asks for, bringDepth
	// how many such requests a peer has at a time.
	bringEntries = 16
	bringDepth   = 6
	// bringHedge is after how long the last requests are made of a second peer.
	bringHedge = 3 * time.Second
	// bringLook bounds how many requests are looked at for one that a peer was
	// not asked yet, while others are under way.
	bringLook = 1024
)

// Bring gets those of some blocks that are not here, from all connected devices
// that share the drive, and makes them durable. tell, which may be nil, is called
// when more has arrived. What nobody has is left out until all else is here; then
// the error matches log.ErrMissing. When ctx ends, what has arrived stays.
func (n *Node) Bring(ctx context.Context, store *log.Store, blocks fs.Blocks, tell func()) (err error) {
	d := n.shared(store.DriveID())
	if d == nil {
		return fmt.Errorf("drive %v is not shared: %w", store.DriveID(), log.ErrMissing)
	}
	b := &bringing{d: d, tell: tell, results: make(chan outcome), active: map[*session]int{}}
	for w, set := range blocks {
		l, err := store.Log(w)
		if err != nil {
			return err
		}
		if !l.IsReplica() {
			continue
		}
		defer func() { err = errors.Join(err, l.Settle()) }()
		var p *piece
		for it := set.Iterator(); it.HasNext(); {
			i := it.Next()
			if l.Holds(i) {
				continue
			}
			if p == nil || len(p.indexes) == bringEntries {
				p = &piece{l: l, tried: map[*session]bool{}}
				b.waiting = append(b.waiting, p)
			}
			p.indexes = append(p.indexes, i)
		}
	}
	return b.run(ctx)
}

// piece is entries that are asked for together.
type piece struct {
	l       *log.Log
	indexes []uint64 // that are missing
	tried   map[*session]bool
	active  int       // requests for it
	begun   time.Time // the newest of these
}

// outcome is that a request for a piece has ended.
type outcome struct {
	p   *piece
	s   *session
	own bool // it was this request that asked for all of the entries
	err error
}

// bringing is one call of Bring; its goroutine owns all but what results brings.
type bringing struct {
	d       *shared
	tell    func()
	waiting []*piece // nobody is being asked for them
	asked   []*piece
	active  map[*session]int
	results chan outcome
	running sync.WaitGroup
	alone   time.Time // since when nobody can be asked for what is waiting
}

func (b *bringing) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer b.running.Wait()
	defer cancel()
	tick := time.NewTicker(time.Second) // for requests that are slow
	defer tick.Stop()
	for len(b.waiting)+len(b.asked) > 0 {
		changed := b.d.node.waitChange()
		b.ask(ctx)
		if len(b.asked) > 0 {
			b.alone = time.Time{}
		} else if b.alone.IsZero() {
			b.alone = time.Now()
		} else if time.Since(b.alone) >= findTime {
			p := b.waiting[0]
			return fmt.Errorf("block %v of drive %v, and more perhaps: nobody here has it: %w",
				log.Ref{Writer: p.l.Writer(), Index: p.indexes[0]}, b.d.id, log.ErrMissing)
		}
		select {
		case r := <-b.results:
			if err := b.took(r); err != nil {
				return err
			}
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-b.d.node.life.Done():
			return peer.ErrClosed
		}
	}
	return nil
}

// ask asks everybody who has room for more.
func (b *bringing) ask(ctx context.Context) {
	for some := true; some; {
		some = false
		for _, s := range b.d.node.sharing(b.d.id) {
			if b.active[s] >= bringDepth {
				continue
			}
			if p := b.next(s); p != nil {
				b.begin(ctx, s, p)
				some = true
			}
		}
	}
}

// next returns the piece that a peer should be asked for, if there is one: what
// nobody is asked for, and then what others are slow with.
func (b *bringing) next(s *session) *piece {
	look := len(b.waiting)
	if len(b.asked) > 0 {
		look = min(look, bringLook) // it comes round
	}
	for range look {
		p := b.waiting[0]
		b.waiting = b.waiting[1:]
		if !p.tried[s] {
			b.asked = append(b.asked, p)
			return p
		}
		b.waiting = append(b.waiting, p)
	}
	if len(b.waiting) > 0 {
		return nil
	}
	for _, p := range b.asked {
		if !p.tried[s] && p.active == 1 && time.Since(p.begun) >= bringHedge {
			return p
		}
	}
	return nil
}

// begin makes a request.
func (b *bringing) begin(ctx context.Context, s *session, p *piece) {
	p.tried[s] = true
	p.active++
	p.begun = time.Now()
	b.active[s]++
	second := p.active > 1
	indexes := slices.Clone(p.indexes)
	b.running.Go(func() {
		r := outcome{p: p, s: s}
		mine, others, release := indexes, []chan struct{}(nil), func() {}
		if !second {
			mine, others, release = b.d.claim(p.l, indexes, s)
		}
		if r.own = len(others) == 0; len(mine) > 0 {
			r.err = s.get(ctx, s.bulk, p.l, mine)
		}
		release()
		for _, c := range others { // somebody else is getting these
			select {
			case <-c:
			case <-ctx.Done():
			}
		}
		select {
		case b.results <- r:
		case <-ctx.Done():
		}
	})
}

// took takes in what came of a request.
func (b *bringing) took(r outcome) error {
	p := r.p
	p.active--
	b.active[r.s]--
	if !r.own {
		delete(p.tried, r.s) // somebody else was asked
	}
	if errors.Is(r.err, errUnstored) {
		return r.err // nor would it be from anybody else
	}
	if r.err != nil {
		b.d.node.logger.Debug("asking a peer", "peer", r.s.conn.Peer(), "drive", b.d.id, "err", r.err)
	}
	before := len(p.indexes)
	p.indexes = slices.DeleteFunc(p.indexes, p.l.Holds)
	if b.tell != nil && len(p.indexes) < before {
		b.tell()
	}
	if p.active == 0 || len(p.indexes) == 0 {
		b.asked = slices.DeleteFunc(b.asked, func(a *piece) bool { return a == p })
		if len(p.indexes) > 0 {
			b.waiting = append(b.waiting, p)
		}
	}
	return nil
}
