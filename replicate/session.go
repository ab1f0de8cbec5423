package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/log"
	"hearth/replicate/peer"
)

// Codes that connections are closed with.
const (
	codeBroken = peer.CodeUser     // the peer broke a rule
	codeSilent = peer.CodeUser + 1 // it did not answer
)

// helloTime is how long a peer may take to say who it is.
const helloTime = 10 * time.Second

// session is one connection: the control stream and the streams for requests
// of both sides.
type session struct {
	node  *Node
	conn  *peer.Conn
	other peer.Key // of the device there
	since time.Time
	ctx   context.Context // ends with the connection
	wg    sync.WaitGroup

	writeMu sync.Mutex
	control *peer.Stream

	urgents  [urgentLanes]*lane
	bulk     *lane
	inFlight atomic.Int64  // entries asked for
	silent   atomic.Bool   // it was ended for that
	waited   atomic.Int64  // requests that somebody waits for
	window   *window       // of what nobody waits for
	rest     atomic.Int64  // UnixNano until which nothing of that is asked
	pulled   chan struct{} // there may be something to pull
	have     holdings
	gathered chan struct{} // there is something in fresh
	beats    chan struct{} // the other side is to hear that this one is alive

	mu      sync.Mutex
	offered [][32]byte
	drives  map[log.DriveID]bool
	profile profile
	told    string                        // the name that it was told; empty: none
	tells   int                           // how often it was told one
	named   int                           // how often it told its own
	pushed  map[logName]uint64            // sizes of the heads that were sent
	owned   map[logName]uint64            // up to where it was told what is here
	cannot  map[log.DriveID]time.Time     // when it said that it does no walks
	fresh   map[logName]*roaring64.Bitmap // what the other side was not told that is here
	// What the other side was told of walks that are done here, and what it said.
	walkTold, walksSaid map[log.DriveID]bool
	heads               chan *news

	branches branches
	audits   *lane
	standing
	others introducing
}

// serve is a connection's life.
func (n *Node) serve(c *peer.Conn) {
	if n.isBanned(c.Peer()) {
		c.Close(codeBroken, banText)
		return
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	s := &session{
		node: n, conn: c, other: c.Peer(), since: time.Now(), ctx: ctx,
		drives: map[log.DriveID]bool{}, pushed: map[logName]uint64{}, heads: make(chan *news, 64),
		window: newWindow(), pulled: make(chan struct{}, 1), gathered: make(chan struct{}, 1), beats: make(chan struct{}, 1),
		have: newHoldings(), fresh: map[logName]*roaring64.Bitmap{}, owned: map[logName]uint64{}, cannot: map[log.DriveID]time.Time{},
		walkTold: map[log.DriveID]bool{}, walksSaid: map[log.DriveID]bool{},
		standing: standing{heard: map[log.DriveID]uint32{}, ahead: map[log.DriveID]*log.EpochBegun{}},
		others:   introducing{open: map[log.DriveID]bool{}, heard: map[log.DriveID]int{}, told: map[log.DriveID][]byte{}},
	}
	for i := range s.urgents {
		s.urgents[i] = newLane(s, streamRequest)
	}
	s.bulk, s.audits = newLane(s, streamBulk), newLane(s, streamBulk)
	err := s.run()
	n.mu.Lock()
	delete(n.sessions, s)
	n.mu.Unlock()
	s.part()
	cancel()
	if errors.Is(err, ErrProtocol) {
		n.logger.Warn("a peer breaks the protocol", "peer", c.Peer(), "addr", c.Remote(), "err", err)
		c.Close(codeBroken, "protocol")
	} else {
		c.Close(peer.CodeDone, "")
	}
	s.wg.Wait()
	n.mingle()
	n.change()
	n.logger.Debug("a connection ended", "peer", c.Peer(), "addr", c.Remote(), "err", err)
}

// part notes for each drive that a peer is gone.
func (s *session) part() {
	for _, d := range s.node.allShared() {
		if s.shares(d.id) {
			d.mu.Lock()
			d.parted = time.Now()
			if s.silent.Load() {
				d.silenced = d.parted
			}
			d.mu.Unlock()
		}
	}
}

func (s *session) end(code peer.Code, text string) { s.conn.Close(code, text) }

func (s *session) run() error {
	stop := context.AfterFunc(s.node.life, func() { s.end(peer.CodeShutdown, "") })
	defer stop()
	hello, cancel := context.WithTimeout(s.ctx, helloTime)
	defer cancel()
	if err := s.openControl(hello); err != nil {
		return err
	}
	cancel()
	s.node.mu.Lock()
	s.node.sessions[s] = struct{}{}
	s.node.mu.Unlock()
	s.node.change()
	failed := make(chan error, 3)
	s.wg.Go(func() { failed <- s.readControl() })
	s.wg.Go(func() { failed <- s.acceptStreams() })
	s.wg.Go(func() { failed <- s.tell() })
	s.wg.Go(s.followHeads)
	s.wg.Go(s.catchUp)
	s.wg.Go(s.pull)
	s.wg.Go(s.auditOwn)
	select {
	case err := <-failed:
		return err
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

func (s *session) openControl(ctx context.Context) error {
	if s.conn.Dialed() {
		st, err := s.conn.OpenStream(ctx)
		if err != nil {
			return err
		}
		s.control = st
		st.SetUrgent(true)
		_, err = st.Write([]byte{streamControl})
		return err
	}
	st, err := s.conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	_ = st.SetReadDeadline(deadline)
	var kind [1]byte
	if _, err := io.ReadFull(st, kind[:]); err != nil {
		return err
	}
	if kind[0] != streamControl {
		return fmt.Errorf("%w: the first stream has kind %d", ErrProtocol, kind[0])
	}
	_ = st.SetReadDeadline(time.Time{})
	st.SetUrgent(true)
	s.control = st
	return nil
}

func (s *session) write(b []byte) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	_ = s.control.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := s.control.Write(b)
	return err
}

// readControl takes in what the other side says.
func (s *session) readControl() error {
	var buf []byte
	for {
		m, err := readMessage(s.control, &buf)
		if err != nil {
			return err
		}
		switch m.typ {
		case msgOffer:
			tokens, err := decodeOffer(m.body)
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.offered = append(make([][32]byte, 0, len(tokens)), tokens...) // not nil: it was heard
			s.mu.Unlock()
			s.match()
		case msgName:
			p, err := decodeProfile(m.body)
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.profile = p
			any := len(s.drives) > 0
			s.named++
			named := s.named
			s.mu.Unlock()
			if named > maxNames {
				return fmt.Errorf("%w: %d names", ErrProtocol, named)
			}
			if any && s.node.options.Met != nil {
				s.node.options.Met(s.conn.Peer(), p.name, p.beacon)
			}
			if any {
				s.node.contacts.recall(s.conn.Peer())
			}
		case msgHead:
			h, err := decodeNews(m.body)
			if err != nil {
				return err
			}
			select {
			case s.heads <- h:
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
		case msgHolds:
			h, err := decodeHolds(m.body)
			if err != nil {
				return err
			}
			s.have.add(h.log, h.ranges)
			s.kick()
		case msgAlive:
			if len(m.body) > 0 {
				return fmt.Errorf("%w: a sign of life of %d bytes", ErrProtocol, len(m.body))
			}
		case msgWalks:
			if err := s.hearWalking(m.body); err != nil {
				return err
			}
		case msgEpoch:
			if err := s.hearEpoch(m.body); err != nil {
				return err
			}
		case msgPeers:
			if err := s.hearPeers(m.body); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a message of type %d", ErrProtocol, m.typ)
		}
	}
}

// match finds out which drives are shared.
func (s *session) match() {
	holds := s.node.holds()
	s.mu.Lock()
	tokens := make([]peer.Token, len(s.offered))
	for i, t := range s.offered {
		tokens[i] = t
	}
	behind, proved := len(s.behind), s.proved
	s.stand(tokens, holds)
	now := map[log.DriveID]bool{}
	for id := range s.proved {
		now[id] = true
	}
	for name := range s.owned {
		if now[name.drive] && !s.drives[name.drive] {
			delete(s.owned, name) // what it was told meanwhile went past it
			delete(s.pushed, name)
		}
	}
	same := maps.Equal(now, s.drives) && len(s.behind) == behind && maps.Equal(proved, s.proved)
	s.drives = now
	s.mu.Unlock()
	if len(now) > 0 {
		s.conn.Known()
	}
	if !same {
		s.node.mingle()
		s.noteWalkers()
		s.node.change()
	}
}

func (s *session) shares(id log.DriveID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drives[id]
}

// load orders the peers that could be asked: by what they have to do, and how
// far they are.
func (s *session) load() int64 {
	return int64(s.conn.RTT()) * (1 + s.inFlight.Load())
}

// tell offers drives and sends heads, as they change.
func (s *session) tell() error {
	var offered map[peer.ID]peer.Secret
	var due, peers <-chan time.Time
	for {
		changed := s.node.waitChange()
		secrets := s.node.secrets()
		if offered == nil || !sameSecrets(offered, secrets) {
			offered = secrets
			tokens := s.conn.OfferTokens(secrets)
			plain := make([][32]byte, len(tokens))
			for i, t := range tokens {
				plain[i] = t
			}
			if len(plain) > maxOffer {
				plain = plain[:maxOffer]
			}
			s.match() // before the other side can refer to what is offered
			if err := s.write(encodeOffer(plain)); err != nil {
				return err
			}
		}
		if err := s.tellEpochs(); err != nil {
			return err
		}
		if err := s.push(); err != nil {
			return err
		}
		if peers == nil {
			peers = s.peersDue()
		}
		select {
		case <-changed:
		case <-peers:
			peers = nil
			if err := s.tellPeers(); err != nil {
				return err
			}
		case <-s.gathered:
			if due == nil {
				due = time.After(holdsDelay)
			}
		case <-s.beats:
			if err := s.write(encodeAlive()); err != nil {
				return err
			}
		case <-due:
			due = nil
			if err := s.tellFresh(); err != nil {
				return err
			}
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

func sameSecrets(a, b map[peer.ID]peer.Secret) bool {
	if len(a) != len(b) {
		return false
	}
	for id, x := range a {
		if y, ok := b[id]; !ok || x != y {
			return false
		}
	}
	return true
}

// push sends the heads that the other side has not heard of.
func (s *session) push() error {
	p := profile{name: cut(s.node.Name(), maxName), beacon: s.node.options.Beacon}
	s.mu.Lock()
	var ids []log.DriveID
	for id := range s.drives {
		ids = append(ids, id)
	}
	introduce := len(ids) > 0 && s.told != p.name && s.tells < maxNames
	if introduce {
		s.told = p.name
		s.tells++
	}
	s.mu.Unlock()
	if introduce {
		if err := s.write(p.encode()); err != nil {
			return err
		}
	}
	for _, id := range ids {
		d := s.node.shared(id)
		if d == nil {
			continue
		}
		store, tracer, _ := d.state()
		if store == nil || store.Copied() {
			continue // a copied store shows no head of its own
		}
		if err := s.pushWalking(id, tracer); err != nil {
			return err
		}
		for w, l := range store.Logs() {
			if err := s.pushHead(logName{id, w}, l, store); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) pushHead(name logName, l *log.Log, store *log.Store) error {
	s.mu.Lock()
	had := s.pushed[name]
	s.mu.Unlock()
	head := l.Head()
	if !s.provedNewest(store) { // in this order: an epoch begins before its head
		return nil
	}
	if err := s.pushHolds(name, l, head.Size); err != nil {
		return err
	}
	if head.Size <= had {
		return nil
	}
	h := headNews(name, l, head, had)
	s.mu.Lock()
	s.pushed[name] = head.Size
	s.mu.Unlock()
	return s.write(h.encode())
}

// headNews is the HEAD for whoever was told of the first had entries.
func headNews(name logName, l *log.Log, head log.Head, had uint64) *news {
	h := &news{log: name, proof: log.HeadProof{Note: head.Note}}
	if had > 0 {
		if p, err := l.ProveHead(had); err == nil {
			h.proof = p
			h.controls = l.Controls(had, maxControls)
			if len(h.controls) >= maxControls {
				h.controls, h.proof.Leaves, h.proof.Edges = nil, nil, nil
			}
		}
	}
	return h
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// acceptStreams serves the other side's streams.
func (s *session) acceptStreams() error {
	for {
		st, err := s.conn.AcceptStream(s.ctx)
		if err != nil {
			return err
		}
		s.wg.Go(func() {
			defer st.Close()
			var kind [1]byte
			_ = st.SetReadDeadline(time.Now().Add(helloTime))
			if _, err := io.ReadFull(st, kind[:]); err != nil {
				return
			}
			_ = st.SetReadDeadline(time.Time{})
			switch {
			case kind[0] == streamRequest || kind[0] == streamBulk:
				st.SetUrgent(kind[0] == streamRequest)
				if err := s.answer(st); errors.Is(err, ErrProtocol) {
					s.node.logger.Warn("a peer breaks the protocol", "peer", s.conn.Peer(), "err", err)
					s.end(codeBroken, "protocol")
				}
			case kind[0] != streamControl && s.node.options.Stream != nil:
				s.node.options.Stream(s.ctx, kind[0], st)
			default:
				st.Cancel(codeBroken)
			}
		})
	}
}

func (s *session) describe() Peer {
	st := s.conn.Stats()
	p := Peer{
		Key: s.conn.Peer(), Addr: s.conn.Remote().String(), Dialed: s.conn.Dialed(),
		RTT: st.RTT, Sent: st.Sent, Received: st.Received, SentRate: st.SentRate, ReceivedRate: st.ReceivedRate,
		Since: s.since, Drives: s.sharedDrives(), Holds: map[log.DriveID]Held{},
	}
	s.mu.Lock()
	p.Name = s.profile.name
	s.mu.Unlock()
	p.By, _ = s.node.contacts.introducer(located{p.Key, s.conn.Remote()})
	for _, id := range p.Drives {
		p.Holds[id] = s.holds(id)
	}
	return p
}
