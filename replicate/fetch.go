package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hearth/fs"
	"hearth/log"
)

// How long a reader waits: for somebody to ask, and for an answer.
const (
	findTime   = 5 * time.Second
	answerTime = 10 * time.Second // of silence; then a peer is dropped
	hedgeTime  = 3 * time.Second  // then another one is asked, too
	silentTime = 30 * time.Second
)

// Fetch implements log.Source: somebody waits for these entries.
func (d *shared) Fetch(l *log.Log, indexes []uint64) error {
	ctx, cancel := context.WithTimeout(d.node.life, silentTime)
	defer cancel()
	for {
		mine, others, release := d.claim(l, indexes, nil)
		var err error
		if len(mine) > 0 {
			err = d.demand(ctx, l, mine)
		}
		release()
		if err != nil {
			return err
		}
		for _, c := range others {
			select {
			case <-c:
			case <-ctx.Done():
				return d.waited(ctx, l)
			}
		}
		if len(others) == 0 {
			d.readAhead(l, indexes)
			return nil
		}
	}
}

// alone reports whether nobody to ask has been here for so long that it is of no
// use to wait for one.
func (d *shared) alone() bool {
	for _, s := range d.node.allSessions() {
		if s.shares(d.id) || time.Since(s.since) < findTime { // it may yet say that it does
			return false
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.parted) > findTime
}

// silentOfLate reports whether a peer was given up a moment ago because it did
// not answer.
func (d *shared) silentOfLate() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.silenced) < silentTime
}

func (d *shared) waited(ctx context.Context, l *log.Log) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fmt.Errorf("blocks of writer %d of drive %v: nobody answers: %w", l.Writer(), d.id, context.DeadlineExceeded)
	}
	return fmt.Errorf("blocks of writer %d of drive %v: %w", l.Writer(), d.id, log.ErrMissing)
}

// demand asks one peer until all entries are here, another one when it fails,
// and another one beside it when it is slow.
func (d *shared) demand(ctx context.Context, l *log.Log, indexes []uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	find := time.NewTimer(findTime)
	defer find.Stop()
	hedge := time.NewTimer(hedgeTime)
	defer hedge.Stop()
	asked := map[*session]bool{}
	answers := make(chan error)
	active, more, silent, late := 0, true, false, false
	for {
		changed := d.node.waitChange()
		if more {
			missing := slices.DeleteFunc(slices.Clone(indexes), l.Holds)
			for _, s := range d.sources(logName{d.id, l.Writer()}, missing) {
				if asked[s] {
					continue
				}
				asked[s] = true
				active++
				more = false
				d.node.wg.Go(func() {
					s.waited.Add(1)
					defer s.kick()
					defer s.waited.Add(-1)
					err := s.get(ctx, s.urgent(), l, missing)
					select {
					case answers <- err:
					case <-ctx.Done():
					}
				})
				hedge.Reset(hedgeTime)
				break
			}
		}
		if active == 0 && (late || d.alone()) {
			if silent || d.silentOfLate() {
				return fmt.Errorf("blocks of writer %d of drive %v: nobody answers: %w", l.Writer(), d.id, context.DeadlineExceeded)
			}
			return fmt.Errorf("block %v of drive %v: nobody here has it: %w", log.Ref{Writer: l.Writer(), Index: indexes[0]}, d.id, log.ErrMissing)
		}
		select {
		case err := <-answers:
			active--
			more = true
			silent = silent || errors.Is(err, context.DeadlineExceeded)
			if !slices.ContainsFunc(indexes, func(i uint64) bool { return !l.Holds(i) }) {
				return nil
			}
			if errors.Is(err, errUnstored) {
				return err // nor would it be from anybody else
			}
			if err != nil {
				d.node.logger.Debug("asking a peer", "drive", d.id, "err", err)
			}
		case <-hedge.C:
			more = true
		case <-find.C:
			late = true
		case <-changed:
		case <-ctx.Done():
			return d.waited(ctx, l)
		}
	}
}

// get asks a peer for entries, and for the tiles to verify them with.
func (s *session) get(ctx context.Context, lane *lane, l *log.Log, indexes []uint64) error {
	q := &request{typ: msgGet, log: s.nameOf(l)}
	n := 0
	for k, i := range indexes {
		if k == 0 || i/tileEntries != indexes[k-1]/tileEntries { // neighbours share their tiles
			lacking, err := l.Lacking(nil, i)
			if err != nil {
				return err
			}
			for _, t := range lacking {
				if !slices.Contains(q.tiles, t) {
					q.tiles = append(q.tiles, t)
				}
			}
		}
		if k := len(q.ranges); k > 0 && q.ranges[k-1].first+q.ranges[k-1].n == i {
			q.ranges[k-1].n++
		} else {
			q.ranges = append(q.ranges, span{i, 1})
		}
		n++
		if len(q.ranges) == maxRanges || len(q.tiles) > maxTiles-maxLevels || n == maxEntries {
			break
		}
	}
	slices.SortStableFunc(q.tiles, func(a, b log.TileRef) int { return b.Level - a.Level })
	s.inFlight.Add(int64(n))
	defer s.inFlight.Add(-int64(n))
	var unstored error // the peer has done its part
	err := lane.do(ctx, q, func(p part) error {
		err := s.take(q.log, l, p)
		if errors.Is(err, errUnstored) {
			unstored = err
			return nil
		}
		if lane == s.bulk && len(p.bytes) > 0 {
			s.window.took(len(p.bytes), s.conn.Stats().MinRTT) // with what queues make of it, queues would grow
		}
		return err
	})
	if err == nil { // otherwise parts may still come
		err = unstored
	}
	if err != nil {
		return err
	}
	if n < len(indexes) {
		return s.get(ctx, lane, l, indexes[n:])
	}
	return nil
}

func (s *session) nameOf(l *log.Log) logName {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	for id, d := range s.node.drives {
		store, _, _ := d.state()
		if store == nil {
			continue
		}
		if have, err := store.Log(l.Writer()); err == nil && have == l {
			return logName{id, l.Writer()}
		}
	}
	return logName{}
}

// errUnstored is matched by the error about what arrived and could not be
// stored, as on a full disk.
var errUnstored = errors.New("what arrived cannot be stored")

// take adds a part of an answer to a log. What does not verify ends the
// connection; the error about what cannot be stored matches errUnstored.
func (s *session) take(name logName, l *log.Log, p part) error {
	var err error
	switch p.typ {
	case msgTile:
		err = l.AddTile(p.tile, p.bytes)
	case msgBlock:
		if err = l.AddBlock(p.span.first, p.bytes); err == nil {
			s.arrived(name, p.span.first)
		}
	case msgControl:
		if err = s.takeControl(l, p); err == nil {
			s.arrived(name, p.span.first)
		}
	case msgGone:
		return nil
	default:
		return fmt.Errorf("%w: an answer of type %d", ErrProtocol, p.typ)
	}
	if errors.Is(err, log.ErrProof) {
		if s.excused(l, p) {
			return nil
		}
		s.node.ban(s, err)
		return err
	}
	if err != nil && !errors.Is(err, log.ErrAbsent) {
		return fmt.Errorf("%w: %w", errUnstored, err)
	}
	return nil
}

// takeIfRoom is take of what nobody waits for by itself: whoever needs it asks
// again, and hears why it cannot be had.
func (s *session) takeIfRoom(name logName, l *log.Log, p part) error {
	err := s.take(name, l, p)
	if errors.Is(err, log.ErrClosed) {
		return nil
	}
	if errors.Is(err, errUnstored) {
		s.node.logger.Warn("a part of an answer was left out", "err", err)
		return nil
	}
	return err
}

func (s *session) takeControl(l *log.Log, p part) error {
	held := l.Holds(p.span.first)
	if err := l.AddControlEntry(p.span.first, p.bytes); err != nil || held {
		return err
	}
	if d := s.node.shared(s.nameOf(l).drive); d != nil {
		if store, _, _ := d.state(); store != nil {
			if err := store.TakeControl(l, p.span.first); err != nil {
				s.node.logger.Warn("a control entry was passed over", "drive", d.id, "index", p.span.first, "err", err)
			}
			s.node.change()
		}
	}
	return nil
}

// genesis asks for a drive's first entry.
func (s *session) genesis(ctx context.Context, id log.DriveID) (*log.Genesis, error) {
	var found *log.Genesis
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err := s.urgent().do(ctx, &request{typ: msgInfo, log: logName{drive: id}}, func(p part) error {
		_, c, err := log.ParseEntry(p.bytes)
		g, ok := c.(*log.Genesis)
		if p.typ != msgGenesis || err != nil || !ok || g.DriveID() != id {
			return fmt.Errorf("%w: a genesis of another drive", ErrProtocol)
		}
		found = g
		return nil
	})
	if err == nil && found == nil {
		err = errCannot
	}
	if err != nil {
		return nil, err // parts may still come
	}
	return found, nil
}

// headTries is how often a head is asked for that could not be had.
const headTries = 4

// followHeads takes in newer heads, one after the other. What is said of a
// drive that is still being joined waits until it is here.
func (s *session) followHeads() {
	waiting := map[logName]*news{}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		changed := s.node.waitChange()
		for name, h := range waiting {
			d := s.node.shared(name.drive)
			if d == nil || !s.shares(name.drive) {
				continue
			}
			if store, _, _ := d.state(); store == nil {
				continue
			}
			delete(waiting, name)
			if err := s.followHead(h); err != nil && s.ctx.Err() == nil {
				if h.tries++; h.tries < headTries {
					waiting[name] = h
					again.Reset(time.Duration(h.tries) * time.Second)
					continue
				}
				s.node.logger.Warn("a head was not accepted", "peer", s.conn.Peer(), "drive", name.drive, "writer", name.writer, "err", err)
			}
		}
		select {
		case <-s.ctx.Done():
			return
		case <-changed:
		case <-again.C:
		case h := <-s.heads:
			if len(waiting) < maxOffer {
				waiting[h.log] = h
			}
		}
	}
}

func (s *session) followHead(h *news) error {
	d := s.node.shared(h.log.drive)
	if d == nil || !s.shares(h.log.drive) {
		return nil
	}
	store, _, _ := d.state()
	if store == nil || s.astray(h.log) == doubtNot {
		return nil
	}
	own := store.OwnWriter() == h.log.writer
	l, err := store.Log(h.log.writer)
	if err != nil && !own {
		l, err = store.Replica(h.log.writer)
	}
	if err != nil {
		return err
	}
	head, err := l.Verifier().Verify(h.proof.Note)
	if err != nil {
		s.node.ban(s, err)
		return err
	}
	s.show(h.log, head)
	if own || head.Size <= l.Head().Size {
		return s.judge(store, l, h.log, head)
	}
	if known := l.Known(); h.proof.Old == known.Size && known.Size == l.Head().Size && len(h.proof.Leaves) > 0 {
		_, err := store.Advance(l, h.proof)
		switch {
		case errors.Is(err, log.ErrUndecided): // the proof that it is asked for decides
		case err != nil:
			return s.refused(h.log, err)
		case len(h.controls) > 0:
			s.stray(h.log, doubtNone)
			ctx, cancel := context.WithTimeout(s.ctx, answerTime)
			defer cancel()
			return s.get(ctx, s.urgent(), l, h.controls)
		default:
			s.stray(h.log, doubtNone)
			return nil
		}
	}
	return s.askHead(s.ctx, store, l)
}

// askHead asks for the newest head of a log, and what is needed to read it.
func (s *session) askHead(ctx context.Context, store *log.Store, l *log.Log) error {
	ctx, cancel := context.WithTimeout(ctx, silentTime)
	defer cancel()
	name := logName{store.DriveID(), l.Writer()}
	if d := s.node.shared(name.drive); d != nil {
		d.heads.Add(1)
		defer s.node.change() // after the next
		defer d.heads.Add(-1)
	}
	var moved error // others were faster; whoever waits behind this request is not to suffer
	err := s.urgent().do(ctx, &request{typ: msgProve, log: name, known: l.Known().Size}, func(p part) error {
		if p.typ != msgProof {
			return s.takeIfRoom(name, l, p)
		}
		_, err := store.Advance(l, p.proof)
		if errors.Is(err, log.ErrMoved) {
			moved = err
			return nil
		}
		if err == nil {
			s.stray(name, doubtNone)
		}
		return s.refused(name, err)
	})
	if err == nil {
		err = moved
	}
	return err
}

// Walk implements fs.Walker.
func (d *shared) Walk(ctx context.Context, w fs.Walk) error {
	store, _, _ := d.state()
	if store == nil {
		return errCannot
	}
	l, err := store.Log(w.Commit.Writer)
	if err != nil {
		return err
	}
	err = errCannot
	for _, s := range d.node.asking(d.id) {
		if s.astray(logName{d.id, w.Commit.Writer}) != doubtNone || !s.walks(d.id) {
			continue
		}
		one, cancel := context.WithTimeout(ctx, answerTime)
		err = s.urgent().do(one, &request{typ: msgWalk, log: logName{d.id, w.Commit.Writer}, walk: w},
			func(p part) error { return s.takeIfRoom(logName{d.id, w.Commit.Writer}, l, p) })
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errCannot) {
			s.mu.Lock()
			s.cannot[d.id] = time.Now()
			s.mu.Unlock()
		}
	}
	return err
}

// walkAgain is how long a peer is not asked for walks that does none.
const walkAgain = 30 * time.Second
