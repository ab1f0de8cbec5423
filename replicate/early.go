package replicate

import (
	"crypto/sha256"
	"slices"
	"time"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"
)

// What saves round trips: a device that is known to do walks of a drive is asked
// as soon as it is connected, and one that does none is not asked for them.

// maxExpected bounds how many drives of one device are remembered.
const maxExpected = 64

// Mark names a drive under a hold secret, to this device alone: after a link was
// revoked it is another one, and nobody is expected who may not have the new one.
func Mark(hold [32]byte, id log.DriveID) [32]byte {
	return sha256.Sum256(slices.Concat([]byte("hearth/1 expected\x00"), hold[:], id[:]))
}

// Expect says that a device does walks of a drive, which has a [Mark]: it did
// before, or made a link that lets read. For the first moments of a connection it
// is asked without waiting until it has offered the drive, which takes a round
// trip. So one that has gone over to somebody else learns, once more, what is
// looked for in a drive that it could read.
func (n *Node) Expect(key [32]byte, mark [32]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.expected[key]
	if !slices.Contains(all, mark) {
		n.expected[key] = append(all[max(0, len(all)-maxExpected+1):len(all):len(all)], mark)
	}
}

// noteWalkers notes of which drives the other side has proved to share and says
// to do walks.
func (s *session) noteWalkers() {
	var marks [][32]byte
	s.mu.Lock()
	for id := range s.drives {
		if hold, ok := s.proved[id]; ok && s.walksSaid[id] && len(marks) < maxExpected {
			marks = append(marks, Mark(hold, id))
		}
	}
	s.mu.Unlock()
	for _, m := range marks {
		s.node.Expect(s.conn.Peer(), m)
	}
	if len(marks) > 0 && s.node.options.Shares != nil {
		s.node.options.Shares(s.conn.Peer(), marks)
	}
}

// mayAsk reports whether the other side can be asked for a drive: it shares it,
// or it is expected to and has not said yet what it shares. It then answers when
// it has heard what this side offers.
func (s *session) mayAsk(id log.DriveID) bool {
	s.mu.Lock()
	shares, heard := s.drives[id], s.offered != nil
	s.mu.Unlock()
	return shares || !heard && time.Since(s.since) < shareTime && s.node.expects(s.conn.Peer(), id)
}

func (n *Node) expects(key peer.Key, id log.DriveID) bool {
	d := n.shared(id)
	if d == nil {
		return false
	}
	mark := Mark(d.holds()[0], id)
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.expected[key], mark)
}

// walks reports whether the other side can be asked for a walk, in which names
// and places are that only those may see who can read the drive: it says that it
// does walks, or has not said anything yet and is expected to.
func (s *session) walks(id log.DriveID) bool {
	s.mu.Lock()
	yes, said := s.walksSaid[id]
	rests := time.Since(s.cannot[id]) <= walkAgain
	s.mu.Unlock()
	return !rests && (yes || !said && s.node.expects(s.conn.Peer(), id))
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
	if _, said := s.walksSaid[k.drive]; said || len(s.walksSaid) < maxOffer {
		s.walksSaid[k.drive] = k.yes
	}
	s.mu.Unlock()
	s.noteWalkers()
	s.node.change() // somebody may wait for one
	return nil
}
