package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hearth/log"
	"hearth/log/wire"
	"hearth/replicate/peer"
)

// Key epochs change the hold secret of a drive: see package log. A peer that
// proves the secret of an older epoch was away, or its access was ended. It is
// told which epoch is the newest, and may ask for its boxes, by which the two
// are told apart; nothing else is shared with it.

// epochNews is that a drive has a newer epoch than the other side proved.
type epochNews struct {
	token [32]byte // of the older epoch
	entry []byte   // the EpochBegun
}

func (n *epochNews) encode() []byte {
	w := newMessage(nil, msgEpoch)
	w.Raw(n.token[:])
	w.Raw(n.entry)
	return seal(&w)
}

func decodeEpoch(b []byte) (epochNews, *log.EpochBegun, error) {
	r := wire.NewReader(b)
	n := epochNews{token: read32(r), entry: r.Rest()}
	if err := done(r, "epoch"); err != nil {
		return n, nil, err
	}
	_, c, err := log.ParseEntry(n.entry)
	if err != nil {
		return n, nil, fmt.Errorf("%w: epoch: %w", ErrProtocol, err)
	}
	e, ok := c.(*log.EpochBegun)
	if !ok {
		return n, nil, fmt.Errorf("%w: no beginning of an epoch", ErrProtocol)
	}
	return n, e, nil
}

// standing is how this session and the other side stand by their hold secrets.
// The session's lock guards it.
type standing struct {
	proved map[log.DriveID]peer.Secret // the newest one, by which a drive is shared
	behind map[log.DriveID]peer.Secret // an older one, of the other side
	heard  map[log.DriveID]uint32      // epochs that it was told of
	ahead  map[log.DriveID]*log.EpochBegun
}

// holds returns the hold secrets of all drives, the newest first.
func (n *Node) holds() map[peer.ID][]peer.Secret {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[peer.ID][]peer.Secret, len(n.drives))
	for id, d := range n.drives {
		all[peer.ID(id)] = d.holds()
	}
	return all
}

// holds returns the drive's hold secrets, the newest first.
func (d *shared) holds() []peer.Secret {
	store, _, _ := d.state()
	if store == nil {
		return []peer.Secret{d.hold}
	}
	var all []peer.Secret
	for _, h := range store.HoldSecrets() {
		all = append(all, h)
	}
	return all
}

// stand finds out, of the tokens that were offered, which drives are shared and
// of which the other side has only older secrets. With the session's lock held.
func (s *session) stand(tokens []peer.Token, holds map[peer.ID][]peer.Secret) {
	s.proved, s.behind = map[log.DriveID]peer.Secret{}, map[log.DriveID]peer.Secret{}
	for age := 0; len(holds) > 0; age++ {
		aged := map[peer.ID]peer.Secret{}
		for id, all := range holds {
			if age < len(all) {
				aged[id] = all[age]
			}
		}
		if len(aged) == 0 {
			return
		}
		for _, id := range s.conn.MatchTokens(tokens, aged) {
			switch {
			case age == 0:
				s.proved[log.DriveID(id)] = aged[id]
			case s.behind[log.DriveID(id)] == (peer.Secret{}) && s.proved[log.DriveID(id)] == (peer.Secret{}):
				s.behind[log.DriveID(id)] = aged[id]
			}
		}
	}
}

// provedNewest reports whether the other side proved the secret that is the
// newest by now.
func (s *session) provedNewest(store *log.Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proved[store.DriveID()] == store.HoldSecret()
}

// served reports whether requests for a drive are answered: whoever knows an
// older epoch may be about to catch up.
func (s *session) served(id log.DriveID) bool {
	if !s.shares(id) {
		return false
	}
	d := s.node.shared(id)
	if d == nil {
		return true // which the answer says
	}
	store, _, _ := d.state()
	return store == nil || s.provedNewest(store)
}

// tellEpochs tells the other side of the epochs that it does not know.
func (s *session) tellEpochs() error {
	s.mu.Lock()
	behind := s.behind // replaced, never changed
	s.mu.Unlock()
	for id, secret := range behind {
		d := s.node.shared(id)
		if d == nil {
			continue
		}
		store, _, _ := d.state()
		if store == nil {
			continue
		}
		e := store.NewestEpoch()
		s.mu.Lock()
		news := e != nil && e.Epoch > s.heard[id]
		if news {
			s.heard[id] = e.Epoch
		}
		s.mu.Unlock()
		if !news {
			continue
		}
		entry, err := log.EncodeControl(e)
		if err != nil {
			return err
		}
		if err := s.write((&epochNews{token: s.conn.Token(peer.ID(id), secret), entry: entry}).encode()); err != nil {
			return err
		}
	}
	return nil
}

// hearEpoch takes in that a drive has a newer epoch than this device proved. It
// is verified when it is used.
func (s *session) hearEpoch(body []byte) error {
	n, e, err := decodeEpoch(body)
	if err != nil {
		return err
	}
	for id, all := range s.node.holds() {
		for _, secret := range all {
			if !s.conn.CheckToken(id, secret, n.token) {
				continue
			}
			s.mu.Lock()
			if old := s.ahead[log.DriveID(id)]; old == nil || old.Epoch < e.Epoch {
				s.ahead[log.DriveID(id)] = e
			}
			s.mu.Unlock()
			s.node.change()
		}
	}
	return nil
}

func (s *session) aheadOf(id log.DriveID) *log.EpochBegun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead[id]
}

// mayCatchUp reports whether the other side may learn of the newest epoch.
func (s *session) mayCatchUp(id log.DriveID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, yes := s.behind[id]
	return yes || s.drives[id]
}

// catchUp asks for the boxes of newer epochs.
func (s *session) catchUp() {
	asked := map[*log.Store]uint32{} // a drive may be joined again
	tries := map[*log.Store]int{}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		changed := s.node.waitChange()
		s.mu.Lock()
		var ids []log.DriveID
		for id := range s.ahead {
			ids = append(ids, id)
		}
		s.mu.Unlock()
		for _, id := range ids {
			d := s.node.shared(id)
			if d == nil {
				continue
			}
			store, _, _ := d.state()
			e := s.aheadOf(id)
			if store == nil || asked[store] >= e.Epoch {
				continue
			}
			asked[store] = e.Epoch
			err := s.askBoxes(store, e)
			if err == nil || s.ctx.Err() != nil {
				continue
			}
			s.node.logger.Warn("the keys of a newer epoch could not be had", "drive", id, "peer", s.conn.Peer(), "err", err)
			if tries[store]++; tries[store] < headTries {
				asked[store] = 0
				again.Reset(time.Duration(tries[store]) * time.Second)
			}
		}
		select {
		case <-s.ctx.Done():
			return
		case <-changed:
		case <-again.C:
		}
	}
}

// askBoxes gets this device's boxes of an epoch and those before. That there is
// none of it means that the device's access was ended.
func (s *session) askBoxes(store *log.Store, e *log.EpochBegun) error {
	if store.HoldEpoch() >= e.Epoch {
		return nil
	}
	if err := store.CheckEpoch(e); err != nil {
		s.node.ban(s, err)
		return err
	}
	if recipient, ok := store.Recipient(); ok {
		ctx, cancel := context.WithTimeout(s.ctx, silentTime)
		defer cancel()
		var kept error // what is wrong on this side
		err := s.urgent().do(ctx, &request{typ: msgBoxes, log: logName{drive: store.DriveID()}, recipient: recipient}, func(p part) error {
			if p.typ != msgBox {
				return fmt.Errorf("%w: an answer of type %d", ErrProtocol, p.typ)
			}
			_, c, err := log.ParseEntry(p.bytes)
			box, ok := c.(*log.KeyBox)
			if err != nil || !ok {
				return fmt.Errorf("%w: no key box", ErrProtocol)
			}
			err = store.TakeBox(e, box)
			if errors.Is(err, log.ErrRefused) && box.Epoch > e.Epoch {
				return nil // of an epoch that has begun meanwhile, which is told next
			}
			if errors.Is(err, log.ErrRefused) || errors.Is(err, log.ErrBox) {
				s.node.ban(s, err)
				return err
			}
			kept = errors.Join(kept, err)
			return nil
		})
		if err = errors.Join(err, kept); err != nil {
			return err
		}
	}
	if store.HoldEpoch() < e.Epoch {
		news, err := store.End(e)
		if err != nil {
			return err
		}
		if news {
			s.node.logger.Warn("the drive's owner has ended this device's access; what was written before can be read",
				"drive", store.ID(), "epoch", e.Epoch, "said by", s.conn.Peer())
		}
	}
	s.node.change()
	return nil
}

// boxes answers a request for boxes.
func (a *answering) boxes(store *log.Store, recipient [32]byte) error {
	all := store.BoxesFor(recipient)
	for _, box := range all[max(0, len(all)-maxBoxes):] {
		entry, err := log.EncodeControl(box)
		if err != nil {
			return err
		}
		a.begin(msgBox)
		a.w.Raw(entry)
		if err := a.send(false); err != nil {
			return err
		}
	}
	return nil
}
