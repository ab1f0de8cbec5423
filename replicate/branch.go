package replicate

import (
	"context"
	"errors"

	"hearth/log"
)

// Peers on another branch.
//
// Whoever passes on a log that its writer has forked serves blocks and hashes of
// the other branch in good faith. So each peer is judged by the heads that it
// has shown of a log: where these are on this device's branch, what does not
// verify is its lie, and it is dropped; where they contradict it, or may, it is
// the last to be asked for this log, and what it sends that does not verify is
// passed over.

// branches is what a peer has shown of the logs of shared drives. It is
// guarded by the session's mutex.
type branches struct {
	shown map[logName]log.Head // the newest, signed
	doubt map[logName]doubt
}

// doubt is whether a peer is on another branch of a log.
type doubt uint8

const (
	doubtNone doubt = iota
	doubtSome       // until it shows a head that is on this device's branch
	doubtNot        // it is: both heads are signed
)

// show remembers a signed head that the peer has sent.
func (s *session) show(name logName, head log.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.branches.shown == nil {
		s.branches = branches{shown: map[logName]log.Head{}, doubt: map[logName]doubt{}}
	}
	if head.Size >= s.branches.shown[name].Size {
		s.branches.shown[name] = head
	}
}

// strays reports whether the peer is in doubt about any log of a drive.
func (s *session) strays(id log.DriveID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.branches.doubt {
		if name.drive == id && d != doubtNone {
			return true
		}
	}
	return false
}

// stray sets what is thought of the peer's branch of a log. That it is another
// one is not taken back.
func (s *session) stray(name logName, d doubt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.branches.shown != nil && s.branches.doubt[name] != doubtNot {
		s.branches.doubt[name] = d
	}
}

// astray returns what is thought of the peer's branch of a log.
func (s *session) astray(name logName) doubt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.branches.doubt[name]
}

// excused reports whether what a peer sent of an entry, and does not verify,
// may be what another branch of the log has there.
func (s *session) excused(l *log.Log, p part) bool {
	name := s.nameOf(l)
	if s.astray(name) != doubtNone {
		return true
	}
	s.mu.Lock()
	head, ok := s.branches.shown[name]
	s.mu.Unlock()
	d := s.node.shared(name.drive)
	if !ok || d == nil {
		return false
	}
	store, _, _ := d.state()
	if store == nil {
		return false
	}
	err := store.Compare(l, head, nil)
	if errors.Is(err, log.ErrFork) {
		return s.refused(name, err) == nil
	}
	end := p.span.first + 1
	if p.typ == msgTile {
		end = (p.tile.N + 1) << (8 * (p.tile.Level + 1))
	}
	if err == nil && end <= head.Size {
		return false // it has shown that it has something else
	}
	s.stray(name, doubtSome)
	s.node.logger.Info("a peer may have another branch of a log",
		"peer", s.conn.Peer(), "drive", name.drive, "writer", name.writer, "err", err)
	return true
}

// judge takes in a head that is not newer than this device's, or of the log
// that it writes itself.
func (s *session) judge(store *log.Store, l *log.Log, name logName, head log.Head) error {
	err := store.Compare(l, head, nil)
	if errors.Is(err, log.ErrUndecided) && head.Size > l.Head().Size && l.Head().Size > 0 {
		err = s.prove(store, l, name)
	}
	if errors.Is(err, log.ErrUndecided) && !errors.Is(err, log.ErrProof) {
		return nil // older than what is here of the tree
	}
	if err == nil {
		s.stray(name, doubtNone)
	}
	return s.refused(name, err)
}

// prove asks for a proof of a newer head of this device's own log: it has
// forked, or this device has lost what it wrote.
func (s *session) prove(store *log.Store, l *log.Log, name logName) error {
	ctx, cancel := context.WithTimeout(s.ctx, silentTime)
	defer cancel()
	var judged error
	err := s.urgent().do(ctx, &request{typ: msgProve, log: name, known: l.Head().Size}, func(p part) error {
		if p.typ != msgProof {
			return nil
		}
		head, err := l.Verifier().Verify(p.proof.Note)
		if err == nil {
			err = store.Compare(l, head, &p.proof)
		}
		if err == nil && head.Size > l.Head().Size {
			store.NoteOvertaken(head)
			s.node.logger.Error("a peer has a newer head of the log that this device writes", "peer", s.conn.Peer(), "drive", name.drive,
				"size", head.Size, "here", l.Head().Size)
		}
		judged = err
		return nil
	})
	if err != nil {
		return err // parts may still come
	}
	return judged
}

// refused drops a peer whose head does not verify. One that passes a fork on is
// no liar: the log's writer is.
func (s *session) refused(name logName, err error) error {
	if errors.Is(err, log.ErrFork) {
		s.stray(name, doubtNot)
		s.node.logger.Error("a drive's log has forked: its writer went back and began anew", "peer", s.conn.Peer(), "err", err)
		return nil
	}
	if errors.Is(err, log.ErrProof) || errors.Is(err, log.ErrCheckpoint) {
		s.node.ban(s, err)
	}
	return err
}
