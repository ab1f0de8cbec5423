package log

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
)

// Joined is what a device knows of a drive that it joins.
type Joined struct {
	Genesis *Genesis
	Name    string   // how the drive is called here
	Hold    [32]byte // the hold secret
	Epoch   uint32   // of Hold
	// Link is the seed of the share link, whose boxes have the read keys; nil
	// for a device that only holds the drive.
	Link *[32]byte
	// Holder is the seed of a link that lets nobody read, whose boxes have the
	// hold secrets of later epochs.
	Holder *[32]byte
}

// JoinStore creates the store of another device's drive in an empty or absent
// directory: it writes no log, and has the others' as replicas. Read keys come
// with the control entries: see [Store.OpenBoxes].
func JoinStore(o StoreOptions, j Joined) (*Store, error) {
	o.complete()
	s := newStore(o)
	if err := s.checkEmpty(); err != nil {
		return nil, fmt.Errorf("joining a drive in %s: %w", o.Dir, err)
	}
	if err := s.join(j); err != nil {
		return nil, errors.Join(fmt.Errorf("joining a drive in %s: %w", o.Dir, err), s.closeLogs(), s.disk.RemoveAll(s.dir))
	}
	return s, nil
}

func (s *Store) join(j Joined) error {
	keys := &secrets{Format: FormatVersion, Writer: NoWriter, Hold: j.Hold, HoldEpoch: j.Epoch, Recovery: j.Genesis.Recovery, ReadKeys: map[uint32]secret{}}
	if j.Link != nil {
		link := secret(*j.Link)
		keys.Link = &link
	}
	if j.Holder != nil {
		holder := secret(*j.Holder)
		keys.Holder = &holder
	}
	entry, err := EncodeControl(j.Genesis)
	if err != nil {
		return err
	}
	if err := s.disk.MkdirAll(s.dir); err != nil {
		return err
	}
	if err := writeChecked(s.disk, s.path("keys"), keys); err != nil {
		return err
	}
	s.takeKeys(keys)
	s.begin(j.Genesis, j.Name)
	if err := s.disk.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	if _, err := s.Replica(0); err != nil {
		return err
	}
	return writeChecked(s.disk, s.path("drive.json"), driveFile{
		Format: FormatVersion, ID: s.id.String(), Name: j.Name, Genesis: base64.StdEncoding.EncodeToString(entry),
	})
}

// Replica returns the log of another writer, which it creates if it is not
// here. The error matches ErrAbsent if the drive has no such writer.
func (s *Store) Replica(w Writer) (*Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[w]; l != nil {
		return l, nil
	}
	m, ok := s.membership.Member(w)
	switch {
	case s.closed:
		return nil, fmt.Errorf("%s: %w", s.dir, ErrClosed)
	case !ok:
		return nil, fmt.Errorf("writer %d of drive %v: %w", w, s.id, ErrAbsent)
	case w == s.keysFile.Writer:
		return nil, fmt.Errorf("%w: the log of writer %d is missing from %s", ErrForeign, w, s.dir)
	}
	o := s.logOptions(w)
	o.Verifier = NewVerifier(m.Log[:])
	l, err := createReplica(o)
	if err != nil {
		return nil, err
	}
	l.SetSource(s.source)
	l.declareDropped(s.membership.Dropped(w))
	s.logs[w] = l
	return l, nil
}

// SetSource sets who is asked for what replicas lack; nil: nobody.
func (s *Store) SetSource(source Source) {
	s.mu.Lock()
	s.source = source
	s.mu.Unlock()
	for _, l := range s.Logs() {
		if l.replica {
			l.SetSource(source)
		}
	}
}

// Advance is [Log.Advance] for a head that is to be remembered: it is refused
// if it is no successor of the newest that was, and both are kept as evidence.
func (s *Store) Advance(l *Log, p HeadProof) (Head, error) {
	before := l.Known()
	head, err := l.Advance(p)
	var fork *forkError
	if errors.As(err, &fork) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return head, s.fork(fork)
	}
	if err != nil || head.Size == before.Size && len(p.Edges) == 0 {
		return head, err
	}
	if before.Size == 0 || head.Size-before.Size > maxLeaves {
		// What arrives from now on counts only under a head that is known.
		if err := l.Settle(); err != nil {
			return head, err
		}
	}
	return head, s.Remember(l.verifier, head, func(size uint64) ([32]byte, error) {
		if size == before.Size {
			return before.Root, nil // what the proof began with
		}
		return l.Root(size)
	})
}

// Genesis returns the drive's first entry.
func (s *Store) Genesis() Genesis {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.membership.Genesis()
}

// CanRead reports whether the device has a read key.
func (s *Store) CanRead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keysFile.ReadKeys) > 0
}

// IsOwner reports whether the device has the owner's key.
func (s *Store) IsOwner() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keysFile.OwnerSeed != nil
}

// TakeControl applies a control entry that arrived in a replica, and opens the
// boxes that it may bring. The error of one that does not count matches
// ErrRefused.
func (s *Store) TakeControl(l *Log, index uint64) error {
	c, err := l.ReadControl(index)
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = s.membership.Apply(l.writer, index, c)
	var of *Log
	if d, ok := c.(*Dropped); ok && err == nil {
		of = s.logs[d.Writer]
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	switch c := c.(type) {
	case *KeyBox, *EpochBegun:
		return s.OpenBoxes()
	case *Dropped:
		if of != nil {
			of.declareDropped(c.Set)
		}
	}
	return nil
}
