package replicate

import (
	"slices"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"
)

// What saves round trips: a device that is known to share a drive is asked as
// soon as it is connected, and nobody is asked for what it said that it does not
// do.

// maxExpected bounds how many drives of one device are remembered.
const maxExpected = 64

// Expect says that a device shares a drive: it did before, or made the link. It
// is asked for it without waiting until it has offered it, which takes a round
// trip. It learns nothing by that: it has said itself that it knows the drive.
func (n *Node) Expect(key [32]byte, id log.DriveID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.expected[key]
	if !slices.Contains(all, id) {
		n.expected[key] = append(all[max(0, len(all)-maxExpected+1):len(all):len(all)], id)
	}
}

// noteShared notes which drives the other side has proved to share.
func (s *session) noteShared(now map[log.DriveID]bool) {
	var ids []log.DriveID
	for id := range now {
		s.node.Expect(s.conn.Peer(), id)
		if ids = append(ids, id); len(ids) == maxExpected {
			break
		}
	}
	if len(ids) > 0 && s.node.options.Shares != nil {
		s.node.options.Shares(s.conn.Peer(), ids)
	}
}

// mayAsk reports whether the other side can be asked for a drive: it shares it,
// or it is expected to and has not said yet what it shares. It then answers when
// it has heard what this side offers.
func (s *session) mayAsk(id log.DriveID) bool {
	s.mu.Lock()
	shares, heard := s.drives[id], s.offered != nil
	s.mu.Unlock()
	return shares || !heard && s.node.expects(s.conn.Peer(), id)
}

func (n *Node) expects(key peer.Key, id log.DriveID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.expected[key], id)
}

// asking returns the sessions that can be asked for a drive: those that share
// it, in their order, and then those that are expected to.
func (n *Node) asking(id log.DriveID) []*session {
	all := n.sharing(id)
	for _, s := range n.allSessions() {
		if !slices.Contains(all, s) && s.mayAsk(id) {
			all = append(all, s)
		}
	}
	return all
}

// walking is whether the sender of a message does walks of a drive.
type walking struct {
	drive log.DriveID
	yes   bool
}

func (k *walking) encode() []byte {
	w := newMessage(nil, msgWalks)
	w.Raw(k.drive[:])
	if k.yes {
		w.U8(1)
	} else {
		w.U8(0)
	}
	return seal(&w)
}

func decodeWalking(b []byte) (k walking, err error) {
	r := wire.NewReader(b)
	k.drive = log.DriveID(read32(r))
	yes := r.U8()
	if yes > 1 {
		r.Fail("walks: %d", yes)
	}
	k.yes = yes == 1
	return k, done(r, "walks")
}

// pushWalking tells the other side whether this one does walks of a drive, if it
// was not told.
func (s *session) pushWalking(id log.DriveID, tracer Tracer) error {
	k := walking{drive: id, yes: tracer != nil}
	s.mu.Lock()
	was, told := s.walkTold[id]
	s.walkTold[id] = k.yes
	s.mu.Unlock()
	if told && was == k.yes {
		return nil
	}
	return s.write(k.encode())
}

// hearWalking takes in whether the other side does walks.
func (s *session) hearWalking(body []byte) error {
	k, err := decodeWalking(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.walksNot[k.drive] || len(s.walksNot) < maxOffer {
		if k.yes {
			delete(s.walksNot, k.drive)
		} else {
			s.walksNot[k.drive] = true
		}
	}
	return nil
}
