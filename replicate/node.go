package replicate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hearth/fs"
	"hearth/log"
	"hearth/replicate/peer"
)

// Options configures a node. Key and Logger are required.
type Options struct {
	Key    ed25519.PrivateKey // of the device
	Listen string             // host:port; "" is any port
	Name   string             // of the device, told to those it shares a drive with
	Beacon [32]byte           // by which they recognise it on a LAN
	Logger *slog.Logger
	// Up and Down limit what all connections carry, see [Node.SetRates].
	Up, Down int64
	// Banned are the devices that sent what did not verify, and why they are not
	// spoken to; at most MaxBanned of them. Ban is told of further ones.
	Banned map[[32]byte]string
	Ban    func(key [32]byte, name, why string)
	// WrongKey is told when another device than the expected one answers at an
	// address of [Node.Connect].
	WrongKey func(addr string, want, got [32]byte)
	// Met is told the beacon secret of a device that a drive is shared with,
	// and its name, also when it gets another one.
	Met func(key [32]byte, name string, beacon [32]byte)
	// Rush is told when transfers fill a fast path, and when they do no more: see
	// [peer.Options].
	Rush func(bool)

	// Introduce has devices that share a drive told of each other and of this one,
	// and this one dial those that it is told of: see [Node.SetIntroductions].
	Introduce bool
	// Contacts are where such devices were met before, the newest last, and
	// Introduced is told of further ones, and again once in the node's life. Those
	// in Forgotten, at most MaxForgotten, are not met by being introduced.
	Contacts   []Contact
	Introduced func(Contact)
	Forgotten  [][32]byte

	// Shares is told the marks of drives of which a device does walks, when that
	// changes; see Expect.
	Shares func(key [32]byte, marks [][32]byte)
	// Stream takes the streams of a kind that this package does not know, whose
	// first byte was read; nil: they are refused. It owns the stream.
	Stream func(ctx context.Context, kind byte, s *peer.Stream)

	// Audits are results of earlier audits, and Audited is told each new one:
	// see [Node.Audit].
	Audits  []Audit
	Audited func(Audit)

	respond func(*answering, *request) (uint8, error) // a test may lie
	now     func() time.Time                          // by which audits are due
	after   func(time.Duration) <-chan time.Time
}

// Tracer does walks for others: see [fs.Drive.Trace].
type Tracer interface {
	Trace(ctx context.Context, w fs.Walk, visit func(log.Ref) bool) error
}

// Node shares drives with peers. It is safe for concurrent use.
type Node struct {
	options Options
	logger  *slog.Logger
	ep      *peer.Endpoint
	life    context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu       sync.Mutex
	drives   map[log.DriveID]*shared
	sessions map[*session]struct{}
	dialing  map[string]context.CancelFunc
	banned   map[peer.Key]string
	name     string
	full     atomic.Int64            // UnixNano until which nothing is copied that nobody waits for: the disk is full
	audits   map[audited]Audit       // the newest of each
	expected map[peer.Key][][32]byte // marks
	changed  chan struct{}           // closed and replaced when sessions or what they share change

	introduces atomic.Bool
	mingled    atomic.Uint64 // see mingle
	contacts   *contacts
}

// shared is a drive that is here, or wanted.
type shared struct {
	node *Node
	id   log.DriveID
	hold [32]byte // until there is a store

	mu      sync.Mutex
	store   *log.Store // nil: wanted
	tracer  Tracer
	keep    bool
	end     context.CancelFunc
	flights map[logIndex]*flight
	aheads  map[*log.Log]*ahead
	leaving fs.Blocks    // that are being evicted
	going   bool         // all of it may go from this device, also what comes meanwhile
	heads   atomic.Int64 // requests for newer heads that are under way
	// When a peer was here last, or this drive was first looked for; and when one
	// was last given up because it was silent.
	parted, silenced time.Time

	evicting chan struct{} // holds one while blocks are evicted
}

// New opens the device's socket. Run has to be called.
func New(o Options) (*Node, error) {
	if o.respond == nil {
		o.respond = (*answering).one
	}
	if o.now == nil {
		o.now, o.after = time.Now, time.After
	}
	known, err := newContacts(&o)
	if err != nil {
		return nil, err
	}
	ep, err := peer.Listen(peer.Options{Key: o.Key, Listen: o.Listen, Logger: o.Logger, Up: o.Up, Down: o.Down, Rush: o.Rush})
	if err != nil {
		return nil, err
	}
	n := &Node{
		options: o, logger: o.Logger, ep: ep,
		drives: map[log.DriveID]*shared{}, sessions: map[*session]struct{}{}, dialing: map[string]context.CancelFunc{},
		banned: map[peer.Key]string{}, audits: map[audited]Audit{}, expected: map[peer.Key][][32]byte{}, name: o.Name, changed: make(chan struct{}), contacts: known,
	}
	n.introduces.Store(o.Introduce)
	for key, why := range o.Banned {
		n.banned[key] = why
	}
	for _, a := range o.Audits {
		n.audits[audited{a.Peer, a.Drive}] = a
	}
	n.life, n.stop = context.WithCancel(context.Background())
	n.wg.Go(n.accept)
	n.wg.Go(n.meet)
	n.wg.Go(n.beat)
	return n, nil
}

// Port returns the UDP port of the device.
func (n *Node) Port() int { return n.ep.Port() }

// Key returns the device's public key.
func (n *Node) Key() [32]byte { return n.ep.Self() }

// Close ends all connections. The drives' stores can be closed afterwards.
func (n *Node) Close() error {
	n.stop()
	err := n.ep.Close()
	n.wg.Wait()
	return err
}

func (n *Node) accept() {
	for {
		c, err := n.ep.Accept(n.life)
		if err != nil {
			if n.life.Err() == nil && !errors.Is(err, peer.ErrClosed) {
				n.logger.Error("no more connections are accepted", "err", err)
			}
			return
		}
		n.wg.Go(func() { n.serve(c) })
	}
}

// Add shares a drive, or changes how. With keep, all of it is brought here;
// tracer is nil for a device that cannot read it.
func (n *Node) Add(store *log.Store, tracer Tracer, keep bool) {
	n.mu.Lock()
	d := n.drives[store.DriveID()]
	if d == nil {
		d = n.newShared(store.DriveID(), store.HoldSecret())
		n.drives[d.id] = d
	}
	n.mu.Unlock()
	d.mu.Lock()
	fresh := d.store != store
	d.store, d.tracer, d.keep = store, tracer, keep
	if fresh {
		if d.end != nil {
			d.end()
		}
		var ctx context.Context
		ctx, d.end = context.WithCancel(n.life)
		n.wg.Go(func() { d.watch(ctx, store) })
	}
	d.mu.Unlock()
	store.SetSource(d)
	n.mingle()
	n.change()
}

func (n *Node) newShared(id log.DriveID, hold [32]byte) *shared {
	return &shared{
		node: n, id: id, hold: hold, flights: map[logIndex]*flight{}, aheads: map[*log.Log]*ahead{}, evicting: make(chan struct{}, 1),
		parted: time.Now(),
	}
}

// Want offers to share a drive that is not here yet: see [Node.Genesis].
func (n *Node) Want(id log.DriveID, hold [32]byte) {
	n.mu.Lock()
	if n.drives[id] == nil {
		n.drives[id] = n.newShared(id, hold)
	}
	n.mu.Unlock()
	n.mingle()
	n.change()
}

// Remove ends the sharing of a drive.
func (n *Node) Remove(id log.DriveID) {
	n.mu.Lock()
	d := n.drives[id]
	delete(n.drives, id)
	n.mu.Unlock()
	if d != nil {
		d.mu.Lock()
		if d.end != nil {
			d.end()
		}
		store := d.store
		d.mu.Unlock()
		if store != nil {
			store.SetSource(nil)
		}
	}
	n.change()
}

// Walker returns who does walks for a drive.
func (n *Node) Walker(id log.DriveID) fs.Walker {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.drives[id]; d != nil {
		return d
	}
	return nil
}

func (n *Node) shared(id log.DriveID) *shared {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.drives[id]
}

// secrets are the newest hold secrets of all drives.
func (n *Node) secrets() map[peer.ID]peer.Secret {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[peer.ID]peer.Secret, len(n.drives))
	for id, d := range n.drives {
		all[peer.ID(id)] = d.holds()[0]
	}
	return all
}

// change wakes those who wait for sessions, drives or heads.
func (n *Node) change() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) waitChange() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// watch tells the sessions of the drive's newer heads.
func (d *shared) watch(ctx context.Context, store *log.Store) {
	var wg sync.WaitGroup
	defer wg.Wait()
	watched := map[*log.Log]bool{}
	for {
		changed := d.node.waitChange()
		for _, l := range store.Logs() {
			if watched[l] {
				continue
			}
			watched[l] = true
			wg.Go(func() {
				for {
					c := l.Changed()
					d.node.change()
					select {
					case <-c:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (d *shared) state() (store *log.Store, tracer Tracer, keep bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store, d.tracer, d.keep
}

// Connect keeps a connection to an address for as long as the node lives, or
// until Disconnect. With expect only that device will do. The first attempt's
// error is returned; further ones go on.
func (n *Node) Connect(ctx context.Context, addr string, expect *[32]byte) error {
	n.mu.Lock()
	if n.dialing[addr] != nil {
		n.mu.Unlock()
		return nil
	}
	dial, cancel := context.WithCancel(n.life)
	n.dialing[addr] = cancel
	n.mu.Unlock()
	first := make(chan error, 1)
	n.wg.Go(func() { n.dial(dial, addr, (*peer.Key)(expect), first) })
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Open opens a stream of another kind than this package's to a device that is
// connected, see Options.Stream.
func (n *Node) Open(ctx context.Context, key [32]byte, kind byte) (*peer.Stream, error) {
	n.mu.Lock()
	var found *session
	for s := range n.sessions {
		if s.conn.Peer() == key {
			found = s
		}
	}
	n.mu.Unlock()
	if found == nil {
		return nil, fmt.Errorf("device %v: %w", peer.Key(key), peer.ErrLost)
	}
	st, err := found.conn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := st.Write([]byte{kind}); err != nil {
		st.Cancel(peer.CodeDone)
		return nil, err
	}
	return st, nil
}

// Reach connects to an address once, if the device there is not connected, and
// returns which it is. With expect only that device will do.
func (n *Node) Reach(ctx context.Context, addr string, expect *[32]byte) ([32]byte, error) {
	if expect != nil && n.connected(*expect) {
		return *expect, nil
	}
	c, err := n.dialOnce(ctx, addr, (*peer.Key)(expect))
	if err != nil {
		return [32]byte{}, err
	}
	key := c.Peer()
	if n.redundant(c) {
		c.Close(peer.CodeDone, "connected already")
		return key, nil
	}
	n.wg.Go(func() { n.serve(c) })
	for {
		changed := n.waitChange()
		if n.connected(key) {
			return key, nil
		}
		select {
		case <-changed:
		case <-c.Context().Done():
			return key, c.Err()
		case <-ctx.Done():
			return key, context.Cause(ctx)
		}
	}
}

// Disconnect ends the attempts to reach an address.
func (n *Node) Disconnect(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cancel := n.dialing[addr]; cancel != nil {
		cancel()
		delete(n.dialing, addr)
	}
}

// Redialling waits between these.
const (
	redialFirst = 500 * time.Millisecond
	redialLast  = 30 * time.Second
)

func (n *Node) dial(ctx context.Context, addr string, expect *peer.Key, first chan error) {
	wait := redialFirst
	for {
		if expect == nil || !n.connected(*expect) {
			c, err := n.dialOnce(ctx, addr, expect)
			var wrong *peer.WrongKeyError
			if errors.As(err, &wrong) && n.options.WrongKey != nil {
				n.options.WrongKey(addr, wrong.Want, wrong.Got)
			}
			select {
			case first <- err:
			default:
			}
			if err == nil && n.redundant(c) {
				c.Close(peer.CodeDone, "connected already")
				wait = redialLast
			} else if err == nil {
				begun := time.Now()
				n.serve(c)
				if time.Since(begun) > redialLast {
					wait = redialFirst
				}
			} else if ctx.Err() == nil {
				n.logger.Debug("dialing a peer", "addr", addr, "err", err)
			}
		} else {
			select {
			case first <- nil:
			default:
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, redialLast)
	}
}

// redundant reports whether a connection that was dialed is one too many: there
// is one already that was dialed, too, or, of two devices that dial each other,
// by the one with the lesser key.
func (n *Node) redundant(c *peer.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	own, other := n.ep.Self(), c.Peer()
	for s := range n.sessions {
		if s.conn.Peer() == other && (s.conn.Dialed() || bytes.Compare(own[:], other[:]) > 0) {
			return true
		}
	}
	return false
}

func (n *Node) connected(key peer.Key) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		if s.conn.Peer() == key {
			return true
		}
	}
	return false
}

// Peer is a connected device.
type Peer struct {
	Key            [32]byte
	Name           string // what it says; empty while no drive is shared
	Addr           string
	Dialed         bool // by this device
	RTT            time.Duration
	Sent, Received uint64 // bytes
	// Bytes a second over the last seconds.
	SentRate, ReceivedRate float64
	Since                  time.Time
	Drives                 []log.DriveID // that are shared with it
	By                     [32]byte      // who introduced it; zero: nobody
	Holds                  map[log.DriveID]Held
}

// Held is how much of a drive a peer says that it has. It is a hint, and less than
// the truth of a peer that has it in very many parts.
type Held struct {
	Entries uint64 // that it has
	Of      uint64 // that there are, as far as is known here, without what was dropped
}

// Peers lists the connections, oldest first.
func (n *Node) Peers() []Peer {
	var all []Peer
	for _, s := range n.allSessions() {
		all = append(all, s.describe())
	}
	slices.SortFunc(all, func(a, b Peer) int { return a.Since.Compare(b.Since) })
	return all
}

func (n *Node) allSessions() []*session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.sessions))
}

// sharing returns the sessions that share a drive, the nearest first, and those
// on another branch of it last.
func (n *Node) sharing(id log.DriveID) []*session {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*session
	for s := range n.sessions {
		if s.shares(id) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *session) int {
		if x, y := a.strays(id), b.strays(id); x != y {
			if x {
				return 1
			}
			return -1
		}
		return int(a.load() - b.load())
	})
	return all
}

// sources are the sessions that share a drive: those first that are known to
// have all of these entries, and of them the nearest.
func (d *shared) sources(name logName, indexes []uint64) []*session {
	all := d.node.asking(d.id)
	slices.SortStableFunc(all, func(a, b *session) int {
		has := func(s *session) bool { return s.have.hasAll(name, indexes) && s.astray(name) == doubtNone }
		switch x, y := has(a), has(b); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return all
}

// telling returns the sessions that may tell what a drive is: those that share
// it, and those that know a newer epoch of it.
func (n *Node) telling(id log.DriveID) []*session {
	all := n.asking(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		if s.aheadOf(id) != nil && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// allShared are the drives that are here or wanted.
func (n *Node) allShared() []*shared {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.drives))
}

// Genesis asks for the first entry of a drive that is wanted, as soon as
// somebody who has it is connected.
func (n *Node) Genesis(ctx context.Context, id log.DriveID) (*log.Genesis, error) {
	for {
		changed := n.waitChange()
		for _, s := range n.telling(id) {
			g, err := s.genesis(ctx, id)
			if err == nil {
				return g, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			n.logger.Debug("asking for a genesis", "peer", s.conn.Peer(), "err", err)
		}
		select {
		case <-changed:
		case <-time.After(redialFirst): // a peer that could not answer may be able to
		case <-ctx.Done():
			return nil, fmt.Errorf("drive %v: %w: %w", id, log.ErrMissing, context.Cause(ctx))
		}
	}
}

// AwaitHead waits until the newest version of a drive that others write is
// known here, and can be read if it ever will. The error matches log.ErrRevoked
// if the drive's owner has ended this device's access.
func (n *Node) AwaitHead(ctx context.Context, store *log.Store, read bool) error {
	l, err := store.Replica(0)
	if err != nil {
		return err
	}
	d := n.shared(store.DriveID())
	// Heads are sent without being asked for, but once for a connection.
	ask := time.NewTimer(redialFirst)
	defer ask.Stop()
	for {
		changed := n.waitChange()
		switch {
		case store.Ended():
			return fmt.Errorf("drive %v: %w", store.DriveID(), log.ErrRevoked)
		case l.Head().Size > 0 && (!read || store.ReadsNewest()) && (l.Holds(l.Head().Size-1) || d == nil || d.heads.Load() == 0):
			return nil // what came with the head is here: it would be asked for again
		}
		select {
		case <-changed:
		case <-ask.C:
			for _, s := range n.sharing(store.DriveID()) {
				if err := s.askHead(ctx, store, l); err != nil {
					n.logger.Debug("asking for a head", "peer", s.conn.Peer(), "err", err)
				}
			}
			ask.Reset(redialFirst)
		case <-ctx.Done():
			return fmt.Errorf("drive %v: %w: %w", store.DriveID(), log.ErrMissing, context.Cause(ctx))
		}
	}
}
