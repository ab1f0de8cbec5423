package replicate

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"hearth/log"
	"hearth/replicate/peer"
)

// What an auditor asks for. Of a holder that has lost 1 % of the blocks, 512
// random ones miss all with a probability of 0.99^512, 0.6 %.
const (
	auditSamples = 512
	auditSlice   = 1024
)

// When peers are audited: first a little after they have connected, then again
// soon while they have more each time, and every hour.
const (
	auditFirst = 30 * time.Second
	auditSoon  = 10 * time.Minute
	auditAgain = time.Hour
)

// audited is a drive that a device holds.
type audited struct {
	peer  peer.Key
	drive log.DriveID
}

// Audit is what an audit of a device that holds a drive has found: of the
// sampled blocks, how many it proved to have, how many it says are not there,
// as while it is still copying, and how many it has lost: it gave a wrong proof
// or none.
type Audit struct {
	Drive                       log.DriveID
	Peer                        [32]byte
	Time                        time.Time
	Sampled, Passed, Gone, Lost int
	// Problem says why there is no result, or no whole one; empty: there is.
	Problem string
}

// sample chooses slices of random entries that are here, each at most once.
func sample(l *log.Log, r *rand.Rand, most int) []slice {
	size := l.Head().Size
	var all []slice
	add := func(index uint64) {
		if n, ok := l.StoredLength(index); ok && n > 0 {
			length := min(n, auditSlice)
			all = append(all, slice{index, uint32(r.IntN(n - length + 1)), uint32(length)})
		}
	}
	if size <= uint64(16*most) {
		for _, i := range r.Perm(int(size)) {
			if add(uint64(i)); len(all) == most {
				break
			}
		}
		return all
	}
	tried := map[uint64]bool{}
	for range 64 * most { // few may be here, and 64 tries find them if it is one in ten
		if i := r.Uint64N(size); !tried[i] {
			tried[i] = true
			add(i)
		}
		if len(all) == most {
			break
		}
	}
	return all
}

// auditLog audits a peer once, of one log, and adds what it finds to a.
func (s *session) auditLog(ctx context.Context, l *log.Log, a *Audit) error {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return err
	}
	asked := sample(l, rand.New(rand.NewChaCha8(seed)), auditSamples)
	if len(asked) == 0 {
		return nil
	}
	found := map[uint64]proved{}
	err := s.probe(ctx, s.audits, a.Drive, l, asked, func(c slice, p proved) error {
		found[c.index] = p
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range asked {
		p := found[c.index]
		if p != provedHeld {
			// What is dropped or damaged here proves nothing.
			if _, err := l.ReadStored(nil, c.index); err != nil {
				continue
			}
		}
		a.Sampled++
		switch p {
		case provedHeld:
			a.Passed++
		case provedGone:
			a.Gone++
		default:
			a.Lost++
		}
	}
	return nil
}

// auditTime bounds how long an audit may take.
const auditTime = 2 * time.Minute

// auditDrive audits a peer once, of what this device has of a drive that it
// writes to.
func (s *session) auditDrive(store *log.Store) Audit {
	n := s.node
	a := Audit{Drive: store.DriveID(), Peer: s.conn.Peer(), Time: n.options.now()}
	ctx, cancel := context.WithTimeout(s.ctx, auditTime)
	defer cancel()
	logs := store.Logs()
	var writers []log.Writer
	for w := range logs {
		writers = append(writers, w)
	}
	slices.Sort(writers)
	for _, w := range writers {
		if logs[w].Head().Size == 0 || s.astray(logName{a.Drive, w}) != doubtNone {
			continue
		}
		if err := s.auditLog(ctx, logs[w], &a); err != nil {
			a.Problem = err.Error()
			n.logger.Warn("an audit failed", "peer", s.conn.Peer(), "drive", a.Drive, "err", err)
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, errCannot) && !errors.Is(err, context.DeadlineExceeded) {
				return a // nothing to hold against the peer
			}
			break
		}
	}
	if a.Lost > 0 {
		n.logger.Error("a device that holds a drive has lost blocks", "peer", s.conn.Peer(), "drive", a.Drive,
			"lost", a.Lost, "sampled", a.Sampled)
	}
	n.mu.Lock()
	if len(n.audits) >= maxAudits {
		clear(n.audits)
	}
	n.audits[audited{a.Peer, a.Drive}] = a
	n.mu.Unlock()
	if n.options.Audited != nil {
		n.options.Audited(a)
	}
	return a
}

// maxAudits bounds how many results a node remembers.
const maxAudits = 4096

// auditOwn audits the peer now and then, until the connection ends.
func (s *session) auditOwn() {
	due := map[log.DriveID]time.Time{}
	for {
		changed := s.node.waitChange()
		wait := auditAgain
		for _, id := range s.sharedDrives() {
			store := s.node.written(id)
			if store == nil {
				continue
			}
			now := s.node.options.now()
			last, ok := s.node.lastAudit(audited{s.conn.Peer(), id})
			if due[id].IsZero() {
				due[id] = now.Add(jitter(auditFirst))
				if ok && last.Gone == 0 && last.Problem == "" {
					due[id] = later(due[id], last.Time.Add(jitter(auditAgain)))
				}
			}
			if !now.Before(due[id]) {
				a := s.auditDrive(store)
				due[id] = now.Add(jitter(auditAgain))
				if a.Gone > 0 && (!ok || a.Passed > last.Passed) {
					due[id] = now.Add(jitter(auditSoon))
				}
			}
			wait = min(wait, due[id].Sub(now))
		}
		select {
		case <-changed:
		case <-s.node.options.after(max(wait, 0)):
		case <-s.ctx.Done():
			return
		}
	}
}

// jitter returns from three to five quarters of d.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *session) sharedDrives() []log.DriveID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []log.DriveID
	for id := range s.drives {
		ids = append(ids, id)
	}
	return ids
}

// written returns the store of a drive that this device writes to; nil: it
// does not.
func (n *Node) written(id log.DriveID) *log.Store {
	d := n.shared(id)
	if d == nil {
		return nil
	}
	store, _, _ := d.state()
	if store == nil || store.Own() == nil || store.Copied() {
		return nil
	}
	return store
}

func (n *Node) lastAudit(who audited) (Audit, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.audits[who]
	return a, ok
}

// Audit audits all devices that are connected and share a drive to which this
// device writes.
func (n *Node) Audit(ctx context.Context, id log.DriveID) ([]Audit, error) {
	store := n.written(id)
	if store == nil {
		return nil, fmt.Errorf("auditing the holders of drive %v: %w: this device does not write to it", id, log.ErrReadOnly)
	}
	peers := n.sharing(id)
	all := make([]Audit, len(peers))
	var wg sync.WaitGroup
	for i, s := range peers {
		wg.Go(func() { all[i] = s.auditDrive(store) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return all, nil
}

// Audits returns the newest results of audits of a drive, by device.
func (n *Node) Audits(id log.DriveID) map[[32]byte]Audit {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[[32]byte]Audit{}
	for who, a := range n.audits {
		if who.drive == id {
			all[who.peer] = a
		}
	}
	return all
}
