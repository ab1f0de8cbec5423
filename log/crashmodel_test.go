package log_test

import (
	"fmt"

	"hearth/log"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"golang.org/x/mod/sumdb/tlog"
)

// The crash tests drive one log over a disk that fails and a machine that
// loses power, and hold what is there afterwards against a model.
//
// What a commit acknowledged is fixed. After it come the entries appended
// since; a commit that failed in doubt is a try: the log may be found with
// exactly its entries, or without. Every head that was ever returned or shown
// stays a prefix.

// record is an entry as the model has it.
type record struct {
	stored  []byte
	control bool
	leaf    tlog.Hash
}

func blockRecord(stored []byte) record {
	return record{stored: stored, leaf: tlog.RecordHash(log.Describe(stored).Entry())}
}

func controlRecord(entry []byte) record {
	return record{stored: entry, control: true, leaf: tlog.RecordHash(entry)}
}

// try is a synced commit whose outcome is open.
type try struct {
	entries []record // after the acknowledged ones, the commit last
	// clean: the log said that it did not happen. Only a power loss can bring
	// it back, if that undoes an unsynced truncation.
	clean  bool
	losses int // power losses before it
}

// crashModel is what one log may hold.
type crashModel struct {
	acked  []record
	tail   []record // appended since
	tries  []try
	heads  []log.Head
	losses int

	first []record // what an empty log is opened with: the genesis of a store's

	drops   *roaring64.Bitmap // blocks that were dropped
	mayDrop *roaring64.Bitmap // blocks in drops that failed

	keys [][32]byte // read keys that were added, of epochs from 1 on
}

// dropped returns the blocks that were dropped for certain.
func (m *crashModel) dropped() *roaring64.Bitmap { return m.drops.Clone() }

// match returns the entries that a log of this size must have.
func (m *crashModel) match(l *log.Log) ([]record, error) {
	var why error
	if l.Head().Size == 0 && len(m.acked) == 0 {
		// The genesis is appended again.
		if root, err := l.Root(l.Size()); err != nil || root != rootOf(m.first) {
			return nil, fmt.Errorf("an empty log has %d entries (%v)", l.Size(), err)
		}
		return nil, nil
	}
	fits := func(entries []record) bool {
		if uint64(len(entries)) != l.Size() {
			return false
		}
		root, err := l.Root(l.Size())
		if err != nil {
			why = err
			return false
		}
		return root == rootOf(entries)
	}
	if fits(m.acked) {
		return m.acked, nil
	}
	for _, t := range m.tries {
		if t.clean && t.losses == m.losses {
			continue
		}
		if entries := append(m.acked[:len(m.acked):len(m.acked)], t.entries...); fits(entries) {
			return entries, nil
		}
	}
	return nil, fmt.Errorf("the log has %d entries; %d were acknowledged and %d commits tried beyond, none of which it is (%v)",
		l.Size(), len(m.acked), len(m.tries), why)
}

// shown checks an open log against the model and, since its head may now be
// seen by anybody, takes it as the truth from now on.
func (m *crashModel) shown(l *log.Log) error {
	entries, err := m.match(l)
	if err != nil {
		return err
	}
	if err := m.consistent(l); err != nil {
		return err
	}
	m.acked, m.tail, m.tries = entries, nil, nil
	if len(entries) == 0 {
		m.tail = m.first
	}
	if head := l.Head(); head.Size > 0 {
		m.heads = append(m.heads, head)
	}
	return nil
}

// begins takes what is in a new log.
func (m *crashModel) begins(l *log.Log) error {
	m.first = nil
	for i := range l.Size() {
		entry, err := l.ReadStored(nil, i)
		if err != nil {
			return err
		}
		m.first = append(m.first, controlRecord(entry))
	}
	m.tail = m.first
	return nil
}

// hasKeys checks that a store can open what is sealed with the keys that were
// added to it.
func (m *crashModel) hasKeys(s *log.Store) error {
	for i, key := range m.keys {
		k := seal.NewKeyring()
		k.Add(uint32(i+1), key)
		stored, err := k.Seal(nil, seal.Data, []byte("plain"))
		if err != nil {
			return err
		}
		if _, err := s.Keys().Open(nil, seal.Data, stored); err != nil {
			return fmt.Errorf("the key of epoch %d is lost: %w", i+1, err)
		}
	}
	return nil
}

// consistent checks the head and that all heads before are prefixes of it.
func (m *crashModel) consistent(l *log.Log) error {
	head := l.Head()
	if head.Size != l.Size() && (head.Size != 0 || l.Size() != uint64(len(m.first))) {
		return fmt.Errorf("opened with %d entries and a head of %d", l.Size(), head.Size)
	}
	if head.Size > 0 {
		h, err := l.Verifier().Verify(head.Note)
		if err != nil {
			return fmt.Errorf("the head does not verify: %w", err)
		}
		if h.Size != head.Size || h.Root != head.Root {
			return fmt.Errorf("the head says %d, its note %d", head.Size, h.Size)
		}
	}
	for _, h := range m.heads {
		if h.Size > head.Size {
			return fmt.Errorf("rolled back: a head of %d was shown, now there are %d", h.Size, head.Size)
		}
		root, err := l.Root(h.Size)
		if err != nil {
			return err
		}
		if root != h.Root {
			return fmt.Errorf("forked: the root of %d entries is not the one that was shown", h.Size)
		}
	}
	return nil
}

// rootOf computes the root hash of RFC 6962 with the code of package tlog.
func rootOf(entries []record) [32]byte {
	var peaks []tlog.Hash // of subtrees, largest first
	for i, e := range entries {
		h := e.leaf
		for n := i; n&1 == 1; n >>= 1 {
			h = tlog.NodeHash(peaks[len(peaks)-1], h)
			peaks = peaks[:len(peaks)-1]
		}
		peaks = append(peaks, h)
	}
	if len(peaks) == 0 {
		h, _ := tlog.TreeHash(0, nil)
		return h
	}
	h := peaks[len(peaks)-1]
	for i := len(peaks) - 2; i >= 0; i-- {
		h = tlog.NodeHash(peaks[i], h)
	}
	return h
}
