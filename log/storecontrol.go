package log

import "maps"

// Members returns the writers of the drive, by number.
func (s *Store) Members() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.membership.Members()
}

// AppendControl appends a control entry to the own log and applies it.
// Statements of the owner are signed if need be. It becomes durable with the
// next synced commit.
func (s *Store) AppendControl(c Control) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := c.(statement); ok && c.Type() != TypeSuccession && s.keysFile.OwnerSeed != nil {
		if err := Authorize(st, s.id, ed25519Key(*s.keysFile.OwnerSeed)); err != nil {
			return 0, err
		}
	}
	own := s.logs[s.keysFile.Writer]
	index, err := own.AppendControl(c)
	if err != nil {
		return 0, err
	}
	err = s.membership.Apply(own.writer, index, c)
	if e, ok := c.(*EpochBegun); ok && err == nil {
		s.beginEpoch(e.Epoch)
	}
	return index, err
}

// AddReadKey adds the read key of an epoch, durably.
func (s *Store) AddReadKey(epoch uint32, key [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changeKeys(func(k *secrets) { k.ReadKeys[epoch] = key })
}

// changeKeys changes the file keys, durably. With mu held.
func (s *Store) changeKeys(change func(*secrets)) error {
	keys := *s.keysFile
	for _, m := range []*map[uint32]secret{&keys.ReadKeys, &keys.HoldKeys, &keys.Made} {
		if *m = maps.Clone(*m); *m == nil {
			*m = map[uint32]secret{}
		}
	}
	change(&keys)
	if err := writeChecked(s.disk, s.path("keys"), &keys); err != nil {
		return err
	}
	s.takeKeys(&keys)
	return nil
}

// applyControls adds a log's control entries to the membership. Those that do
// not count, or cannot be read, are said and passed over.
func (s *Store) applyControls(l *Log) {
	for _, index := range l.controls() {
		c, err := l.ReadControl(index)
		if err == nil {
			err = s.membership.Apply(l.writer, index, c)
		}
		if err != nil {
			s.slog.Warn("a control entry was passed over", "entry", Ref{l.writer, index}, "err", err)
		}
	}
}

// honourDrops has the replicas drop what the control entries say was dropped.
// With mu held, or before others know the store.
func (s *Store) honourDrops() {
	for w, l := range s.logs {
		l.declareDropped(s.membership.Dropped(w))
	}
}

// controls returns the indexes of the control entries.
func (l *Log) controls() []uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []uint64
	for page, locs := range l.locs.pages {
		for i, loc := range locs {
			if loc.kind() == locControl {
				all = append(all, uint64(page)*locsPerPage+uint64(i))
			}
		}
	}
	return all
}
