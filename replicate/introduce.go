package replicate

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"
)

// Devices that share a drive are told of each other by those that are connected
// to both, so that they stay together when whoever brought them together goes.
// What is told is a hint where to dial, and nothing is believed for it: see
// contacts.go for what is done with it.

const (
	// peersDelay is the least time from one round of PEERS to the next.
	peersDelay = time.Second
	// maxPeers is how many devices a PEERS names.
	maxPeers = 32
	// maxPeersHeard is how many PEERS of one drive there may be in a connection,
	// with two more for each peersDelay of its life.
	maxPeersHeard = 16
)

// located is a device and where it is.
type located struct {
	key  peer.Key
	addr netip.AddrPort
}

// introduction is which devices share a drive with its sender, and where they are.
type introduction struct {
	drive log.DriveID
	// open: others may be told where the sender is.
	open    bool
	devices []located
}

func (in *introduction) encode() []byte {
	w := newMessage(nil, msgPeers)
	w.Raw(in.drive[:])
	open := uint8(0)
	if in.open {
		open = 1
	}
	w.U8(open)
	w.Uvarint(uint64(len(in.devices)))
	for i := range in.devices {
		d := &in.devices[i]
		w.Raw(d.key[:])
		w.Bytes(d.addr.Addr().AsSlice())
		w.U16(d.addr.Port())
	}
	return seal(&w)
}

func decodeIntroduction(b []byte) (*introduction, error) {
	r := wire.NewReader(b)
	in := &introduction{drive: read32(r)}
	switch open := r.U8(); open {
	case 0, 1:
		in.open = open == 1
	default:
		r.Fail("open is %d", open)
	}
	n := r.Count(32 + 1 + 4 + 2)
	if n > maxPeers {
		r.Fail("%d devices", n)
		n = 0
	}
	for range n {
		key := read32(r)
		ip, ok := netip.AddrFromSlice(r.Bytes(16))
		if !ok {
			r.Fail("no address")
			break
		}
		in.devices = append(in.devices, located{key, netip.AddrPortFrom(ip, r.U16())})
	}
	return in, done(r, "peers")
}

// passable reports whether an address means the same place, and a place for
// devices, to who is told it as to who tells it; other is the address by which
// these two are connected. So nobody far away can make this device send
// something to its own host or network.
func passable(addr netip.AddrPort, other netip.Addr) bool {
	ip := addr.Addr()
	switch {
	case addr.Port() == 0, !ip.IsValid(), ip.Zone() != "", ip.Is4In6(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}),
		ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast():
		return false
	case ip.IsLoopback():
		return other.IsLoopback()
	case internal(ip):
		return internal(other) || other.IsLoopback() || other.IsLinkLocalUnicast()
	}
	return true
}

// internal reports whether an address is of a network that is not the internet:
// a private one, or one behind the address translation of a provider.
func internal(ip netip.Addr) bool {
	return ip.IsPrivate() || netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(ip)
}

// introducing is what a session has said and heard of other devices. The
// session's lock guards open and heard.
type introducing struct {
	open  map[log.DriveID]bool // the other side may be told of
	heard map[log.DriveID]int  // how many PEERS

	// The rest is the telling goroutine's.
	told  map[log.DriveID][]byte // the newest PEERS
	round uint64                 // of the node, that was told
	last  time.Time              // when something was told
}

// mingle notes that others may have to be told of a device, or one may be
// missed: who is connected, what is shared or who may be told of has changed.
func (n *Node) mingle() {
	n.mingled.Add(1)
	n.contacts.kick()
}

// SetIntroductions begins or ends that devices which share a drive are told of
// each other and of this one, and that this one dials those that it is told of.
func (n *Node) SetIntroductions(on bool) {
	if n.introduces.Swap(on) == on {
		return
	}
	n.mingle()
	n.change()
}

// peersDue returns when the other side is to be told of devices, or nil: there
// is no news.
func (s *session) peersDue() <-chan time.Time {
	if s.others.round == s.node.mingled.Load() {
		return nil
	}
	return time.After(time.Until(s.others.last.Add(peersDelay)))
}

// tellPeers tells the other side which devices share the drives that it shares.
func (s *session) tellPeers() error {
	s.others.round = s.node.mingled.Load()
	on := s.node.introduces.Load()
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.drives))
	s.mu.Unlock()
	maps.DeleteFunc(s.others.told, func(id log.DriveID, _ []byte) bool { return !slices.Contains(ids, id) })
	for _, id := range ids {
		in := introduction{drive: id, open: on}
		if on {
			d := s.node.shared(id)
			if d == nil {
				continue
			}
			store, _, _ := d.state()
			if store == nil {
				continue
			}
			if !s.provedNewest(store) {
				delete(s.others.told, id)
				continue
			}
			in.devices = s.node.introducible(s, store)
		} else if s.others.told[id] == nil {
			continue // who does not take part need not say so
		}
		b := in.encode()
		if bytes.Equal(b, s.others.told[id]) {
			continue
		}
		if err := s.write(b); err != nil {
			return err
		}
		s.others.told[id], s.others.last = b, time.Now()
	}
	return nil
}

// introducible are the devices that a peer may be told of: that proved the same
// drive, do not mind, and are at an address that is of use to it. Of too many,
// each peer is told of others.
func (n *Node) introducible(to *session, store *log.Store) []located {
	best := map[peer.Key]*session{}
	self, way := to.conn.Peer(), to.conn.Remote().Addr()
	for _, s := range n.sharing(store.DriveID()) {
		key := s.conn.Peer()
		if key == self || !s.isOpen(store.DriveID()) || !s.provedNewest(store) || n.isBanned(key) || !passable(s.conn.Remote(), way) {
			continue
		}
		if b := best[key]; b == nil || s.conn.Dialed() && !b.conn.Dialed() {
			best[key] = s
		}
	}
	type ranked struct {
		by [sha256.Size]byte
		located
	}
	var order []ranked
	for key, s := range best {
		order = append(order, ranked{sha256.Sum256(slices.Concat(self[:], key[:])), located{key, s.conn.Remote()}})
	}
	slices.SortFunc(order, func(a, b ranked) int { return bytes.Compare(a.by[:], b.by[:]) })
	var all []located
	for _, r := range order[:min(len(order), maxPeers)] {
		all = append(all, r.located)
	}
	return all
}

func (s *session) isOpen(id log.DriveID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.others.open[id]
}

// hearPeers takes in which devices share a drive with the other side.
func (s *session) hearPeers(body []byte) error {
	in, err := decodeIntroduction(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	shared, was := s.drives[in.drive], s.others.open[in.drive]
	if shared {
		s.others.open[in.drive] = in.open
		s.others.heard[in.drive]++
	}
	heard := s.others.heard[in.drive]
	s.mu.Unlock()
	if heard > maxPeersHeard+2*int(time.Since(s.since)/peersDelay) {
		return fmt.Errorf("%w: %d PEERS of a drive", ErrProtocol, heard)
	}
	if !shared {
		return nil // any more
	}
	if was != in.open {
		s.node.mingle()
		s.node.change()
	}
	if s.node.introduces.Load() {
		s.node.hear(s, in)
	}
	return nil
}

// hear notes devices that a peer tells of.
func (n *Node) hear(s *session, in *introduction) {
	way := s.conn.Remote().Addr()
	n.contacts.replace(s.conn.Peer(), in)
	for _, d := range in.devices {
		if d.key == n.ep.Self() || d.key == s.conn.Peer() || n.isBanned(d.key) || !passable(d.addr, way) {
			continue
		}
		connected, dialed := n.reached(d)
		if !dialed { // else it is known to be there
			n.contacts.add(d, s.conn.Peer(), in.drive, connected, time.Now())
		}
	}
	n.contacts.kick()
}

// reached reports whether a device is connected, and whether this one dialed it
// at that address.
func (n *Node) reached(at located) (connected, dialed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		if s.conn.Peer() == at.key {
			connected = true
			dialed = dialed || s.conn.Dialed() && s.conn.Remote() == at.addr
		}
	}
	return connected, dialed
}

// noCommonDrive is why a connection that was made for an introduction ends.
const noCommonDrive = "no drive in common"

// keeps reports whether a connection that was made for an introduction shares a
// drive, and ends it if it does not.
func (n *Node) keeps(c *peer.Conn) bool {
	for _, s := range n.allSessions() {
		if s.conn != c {
			continue
		}
		s.mu.Lock()
		none := len(s.drives) == 0
		s.mu.Unlock()
		if !none {
			return true
		}
	}
	c.Close(peer.CodeDone, noCommonDrive)
	return false
}

// Contact is where a device was met that another one introduced.
type Contact struct {
	Key  [32]byte
	Addr string   // IP:PORT
	By   [32]byte // who introduced it
}

func (c *Contact) located() (located, error) {
	addr, err := netip.ParseAddrPort(c.Addr)
	if err != nil {
		return located{}, fmt.Errorf("where device %v was: %w", peer.Key(c.Key), err)
	}
	return located{c.Key, addr}, nil
}
