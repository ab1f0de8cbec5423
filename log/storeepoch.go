package log

import (
	"bytes"
	"cmp"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Key epochs and who belongs to them.
//
// A key epoch has a read key, under which blocks are sealed from its beginning
// on, and a hold secret, which devices prove to each other from then on. Those
// of epoch 0 are random and unrelated. The hold secret of a later epoch is made
// of its read key, so that who can read can hold:
//
//	hold secret = HKDF-SHA256 (RFC 5869, no salt, 32 bytes) of the read key,
//	              info "hearth hold secret v1" 00
//
// A share link is a recipient of key boxes: one that lets read gets the read
// keys, one that only lets hold the hold secrets. A link that is made later gets
// the keys of all epochs before, and, as the hold secret of epoch 0 cannot be
// made of what it gets, a box of kind 4 with that, sealed to the recipient of
// kind 4 that its seed gives; that recipient is not announced. Who belongs to
// the drive is who has a box of the newest epoch, so revoking one link is an
// epoch with boxes for all others: the boxes first, then its beginning, under
// one checkpoint. The numbers of epochs rise, and may skip what has boxes and
// was not begun.

// ErrRevoked is matched by errors about a device whose access to a drive was
// ended by the drive's owner.
var ErrRevoked = errors.New("access was ended by the drive's owner")

// MaxLinks is how many share links of a drive may be valid at a time: their
// boxes are announced together.
const MaxLinks = 512

// holdSecrets are the hold secrets that a device has, the newest first.
type holdSecrets struct {
	epoch   uint32
	secrets [][32]byte
}

// laterHold returns the hold secret of an epoch after epoch 0.
func laterHold(readKey [32]byte) [32]byte {
	out, err := hkdf.Key(sha256.New, readKey[:], nil, "hearth hold secret v1\x00", 32)
	if err != nil {
		panic(err) // the size is a constant within what HKDF can give
	}
	return [32]byte(out)
}

// readKeys returns the read keys that count. With mu held.
func (s *Store) readKeys() map[uint32]secret {
	all := maps.Clone(s.keysFile.ReadKeys)
	if all == nil {
		all = map[uint32]secret{}
	}
	for epoch, key := range s.keysFile.Made {
		if s.membership != nil && s.membership.begun(epoch) {
			all[epoch] = key
		}
	}
	return all
}

// setHolds computes the hold secrets. With mu held.
func (s *Store) setHolds() {
	all := maps.Clone(s.keysFile.HoldKeys)
	if all == nil {
		all = map[uint32]secret{}
	}
	for epoch, key := range s.readKeys() {
		if epoch > 0 {
			all[epoch] = laterHold(key)
		}
	}
	all[s.keysFile.HoldEpoch] = s.keysFile.Hold
	h := &holdSecrets{}
	for _, epoch := range slices.Backward(slices.Sorted(maps.Keys(all))) {
		h.epoch = max(h.epoch, epoch)
		h.secrets = append(h.secrets, all[epoch])
	}
	s.holds.Store(h)
}

// HoldSecrets returns what proves that a device may hold the drive: the secret
// of the newest epoch that this device knows, and those of the epochs before,
// newest first. Who proves an older one may be told of the newest epoch, and
// nothing else. The slice is not to be changed.
func (s *Store) HoldSecrets() [][32]byte { return s.holds.Load().secrets }

// HoldSecret returns the first of [Store.HoldSecrets].
func (s *Store) HoldSecret() [32]byte { return s.HoldSecrets()[0] }

// HoldEpoch returns the epoch of [Store.HoldSecret].
func (s *Store) HoldEpoch() uint32 { return s.holds.Load().epoch }

// beginEpoch takes a key that was made here into use, if its epoch has begun.
// With mu held, or before the store is shared.
func (s *Store) beginEpoch(epoch uint32) {
	if key, ok := s.keysFile.Made[epoch]; ok && s.membership.begun(epoch) {
		s.keys.Add(epoch, key)
		s.setHolds()
	}
}

// Revoke returns the control entries that begin a key epoch with boxes for all
// recipients but this one. They still have to be appended, all of them and in
// this order, by one who lets nobody else change who belongs to the drive
// meanwhile; the epoch begins with the last. Its key is saved before. The error
// matches ErrReadOnly on a device that is not the owner's, ErrAbsent if the
// recipient has no box of the newest epoch.
func (s *Store) Revoke(recipient [32]byte) ([]Control, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.membership
	if s.keysFile.OwnerSeed == nil {
		return nil, fmt.Errorf("revoking a link of drive %v: %w", s.id, ErrReadOnly)
	}
	if _, ok := m.Box(m.Epoch(), recipient); !ok {
		return nil, fmt.Errorf("recipient %x of drive %v: %w: it does not belong to epoch %d", recipient[:4], s.id, ErrAbsent, m.Epoch())
	}
	epoch := m.unused()
	var key secret
	if _, err := rand.Read(key[:]); err != nil {
		return nil, err
	}
	controls := make([]Control, 0, len(m.Boxes(m.Epoch()))+1)
	for _, old := range m.Boxes(m.Epoch()) {
		if old.Recipient == recipient {
			continue
		}
		to, ok := m.Recipient(old.Recipient)
		if !ok {
			return nil, fmt.Errorf("recipient %x of drive %v: %w: its key is not known", old.Recipient[:4], s.id, ErrAbsent)
		}
		box, err := s.sealBox(epoch, to, key)
		if err != nil {
			return nil, err
		}
		controls = append(controls, box)
	}
	err := s.changeKeys(func(k *secrets) { k.Made[epoch] = key })
	if err != nil {
		return nil, err
	}
	return append(controls, &EpochBegun{Epoch: epoch}), nil
}

// sealBox seals what a recipient gets of an epoch after epoch 0.
func (s *Store) sealBox(epoch uint32, to *Recipient, readKey [32]byte) (*KeyBox, error) {
	if to.Kind == RecipientHolder {
		readKey = laterHold(readKey)
	}
	return SealBox(s.id, epoch, to, readKey)
}

// LinkBoxes returns the control entries that let a share link with this seed
// read the drive: its public key and a box of each epoch's read key. They
// still have to be appended. The error matches ErrReadOnly if there are
// [MaxLinks] already.
func (s *Store) LinkBoxes(seed [32]byte) ([]Control, error) { return s.linkBoxes(RecipientLink, seed) }

// HoldBoxes is LinkBoxes for a link that only lets hold the drive.
func (s *Store) HoldBoxes(seed [32]byte) ([]Control, error) {
	return s.linkBoxes(RecipientHolder, seed)
}

func (s *Store) linkBoxes(kind RecipientKind, seed [32]byte) ([]Control, error) {
	key, err := NewBoxKey(kind, seed)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.membership
	if len(m.Boxes(m.Epoch())) >= MaxLinks {
		return nil, fmt.Errorf("drive %v has %d share links: %w", s.id, MaxLinks, ErrReadOnly)
	}
	to := key.Recipient()
	controls := []Control{to}
	read := s.readKeys()
	add := func(box *KeyBox, err error) error {
		controls = append(controls, box)
		return err
	}
	for _, epoch := range m.Epochs() {
		key, ok := read[epoch]
		switch {
		case !ok:
		case epoch > 0:
			err = add(s.sealBox(epoch, to, key))
		case kind == RecipientHolder:
			err = add(SealBox(s.id, 0, to, s.keysFile.Hold))
		default:
			err = add(SealBox(s.id, 0, to, key))
		}
		if err != nil {
			return nil, err
		}
	}
	if kind == RecipientLink && m.Epoch() > 0 {
		holder, err := NewBoxKey(RecipientHolder, seed)
		if err != nil {
			return nil, err
		}
		if err := add(SealBox(s.id, 0, holder.Recipient(), s.keysFile.Hold)); err != nil {
			return nil, err
		}
	}
	return controls, nil
}

// recipientKeys returns the keys of the boxes that are for this device, that of
// the recipient it is first. With mu held.
func (s *Store) recipientKeys() ([]*BoxKey, error) {
	if s.boxKeys != nil {
		return s.boxKeys, nil
	}
	var keys []*BoxKey
	for _, from := range []struct {
		kind RecipientKind
		seed *secret
	}{{RecipientLink, s.keysFile.Link}, {RecipientHolder, s.keysFile.Link}, {RecipientHolder, s.keysFile.Holder}} {
		if from.seed == nil {
			continue
		}
		key, err := NewBoxKey(from.kind, *from.seed)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	s.boxKeys = keys
	return keys, nil
}

// Recipient returns the name in key boxes of the share link that the drive was
// joined by.
func (s *Store) Recipient() (id [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.recipientKeys()
	if err != nil || len(keys) == 0 {
		return id, false
	}
	return keys[0].ID(), true
}

// OpenBoxes takes the keys out of those boxes of the drive's control entries
// that are for the share link it was joined by. Those of an epoch that has not
// begun do not count yet.
func (s *Store) OpenBoxes() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := s.recipientKeys()
	if err != nil {
		return err
	}
	for _, key := range keys {
		for _, epoch := range s.membership.Epochs() {
			if box, ok := s.membership.Box(epoch, key.ID()); ok {
				err = errors.Join(err, s.openBox(box, key))
			}
		}
	}
	return err
}

// TakeBox takes the key out of a box that somebody says is the drive's and for
// this device, of the epoch that newest began or one before. The error of one
// that is not matches ErrRefused or ErrBox. Neither becomes one of the drive's
// control entries here.
func (s *Store) TakeBox(newest *EpochBegun, box *KeyBox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(s.checkOwner(newest), s.checkOwner(box)); err != nil {
		return err
	}
	if box.Epoch > newest.Epoch {
		return fmt.Errorf("%w: drive %v: epoch %d has not begun", ErrRefused, s.id, box.Epoch)
	}
	keys, err := s.recipientKeys()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.ID() == box.Recipient {
			return s.openBox(box, key)
		}
	}
	return fmt.Errorf("%w: drive %v, epoch %d: it is for another device", ErrBox, s.id, box.Epoch)
}

// openBox adds the key in a box, if it is not known. With mu held.
func (s *Store) openBox(box *KeyBox, key *BoxKey) error {
	have := s.keysFile.ReadKeys
	if box.Kind == RecipientHolder {
		have = s.keysFile.HoldKeys
	}
	if _, ok := have[box.Epoch]; ok {
		return nil
	}
	plain, err := OpenBox(s.id, box, key)
	if err != nil {
		return err
	}
	return s.changeKeys(func(k *secrets) {
		if box.Kind == RecipientHolder {
			k.HoldKeys[box.Epoch] = plain
		} else {
			k.ReadKeys[box.Epoch] = plain
		}
	})
}

// BoxesFor returns the key boxes for a recipient, by epoch.
func (s *Store) BoxesFor(recipient [32]byte) []*KeyBox {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*KeyBox
	for _, epoch := range s.membership.Epochs() {
		if box, ok := s.membership.Box(epoch, recipient); ok {
			all = append(all, box)
		}
	}
	return all
}

// NewestEpoch returns the statement that began the newest epoch of the drive's
// control entries; nil if that is epoch 0.
func (s *Store) NewestEpoch() *EpochBegun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.membership.epochs[s.membership.newest]
}

// CheckEpoch verifies the beginning of an epoch that somebody told. The error
// matches ErrRefused.
func (s *Store) CheckEpoch(e *EpochBegun) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkOwner(e)
}

func (s *Store) checkOwner(c statement) error {
	if !authorized(c, s.id, s.membership.genesis.Owner) {
		return fmt.Errorf("%w: drive %v: the drive's owner has not signed it", ErrRefused, s.id)
	}
	return nil
}

// End remembers, durably, that somebody who knows of an epoch has no box of it
// for this device. It lasts until there is one. It reports whether the device's
// access was not known to have ended.
func (s *Store) End(e *EpochBegun) (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkOwner(e); err != nil || e.Epoch <= max(s.HoldEpoch(), s.keysFile.Ended) {
		return false, err
	}
	news = s.keysFile.Ended <= s.HoldEpoch()
	return news, s.changeKeys(func(k *secrets) { k.Ended = e.Epoch })
}

// Ended reports whether the drive's owner has ended this device's access: the
// drive has an epoch of which this device has no key. What was written before
// stays readable.
func (s *Store) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keysFile.OwnerSeed == nil && max(s.keysFile.Ended, s.membership.Epoch()) > s.HoldEpoch()
}

// ReadsNewest reports whether the device has the read key of the newest epoch
// that it knows of.
func (s *Store) ReadsNewest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.readKeys()[max(s.membership.Epoch(), s.HoldEpoch())]
	return ok
}

// ShareLink is a share link that was made, as the control entries tell.
type ShareLink struct {
	ID      [32]byte // of its boxes
	Kind    RecipientKind
	Made    Ref // the entry that made it known
	Revoked bool
}

// Links returns the drive's share links in the order in which they were made.
func (s *Store) Links() []ShareLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.membership
	var all []ShareLink
	for id, r := range m.recipients {
		if r.Kind != RecipientLink && r.Kind != RecipientHolder {
			continue
		}
		_, counts := m.Box(m.Epoch(), id)
		all = append(all, ShareLink{ID: id, Kind: r.Kind, Made: m.known[id], Revoked: !counts})
	}
	slices.SortFunc(all, func(a, b ShareLink) int {
		if a.Made != b.Made {
			return compareRefs(a.Made, b.Made)
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return all
}

func compareRefs(a, b Ref) int {
	if a.Writer != b.Writer {
		return int(a.Writer) - int(b.Writer)
	}
	if a.Index < b.Index {
		return -1
	}
	return 1
}

// begun reports whether an epoch has begun.
func (m *Membership) begun(epoch uint32) bool {
	_, ok := m.epochs[epoch]
	return ok
}

// unused returns an epoch that has neither begun nor any box.
func (m *Membership) unused() uint32 {
	epoch := m.newest
	for e := range m.boxes {
		epoch = max(epoch, e)
	}
	return epoch + 1
}
