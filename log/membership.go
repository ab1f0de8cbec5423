package log

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// ErrRefused is matched by every error about a control entry that does not
// count: nobody entitled has signed it, or it contradicts an earlier one. It
// stays in the log and changes nothing.
var ErrRefused = errors.New("control entry refused")

// Member is what the control entries say about one writer.
type Member struct {
	Writer       Writer
	Log          [32]byte // Ed25519 key of its log
	Origin       string   // of its log
	Device       [32]byte // Ed25519 key of its device; zero if not known
	Capabilities Capability
	// Removed is set when the writer is no member any more. Then only the
	// first Size entries of its log, with this Root, are part of the drive.
	Removed bool
	Size    uint64
	Root    [32]byte
	// Succeeds is the entry that made this writer a member in place of
	// another; nil for most.
	Succeeds *Succession

	issue uint32 // of the WriterAdded that counts; 0 before there is one
}

// Accepts reports whether an entry of the writer's log is part of the drive.
func (m *Member) Accepts(index uint64) bool { return !m.Removed || index < m.Size }

// Membership is what the control entries of a drive add up to: its writers,
// key epochs, key boxes and dropped blocks. It does no I/O.
//
// Statements of the owner count from wherever they stand, and, unless the
// owner contradicts himself, in any order: so devices that have seen the same
// entries agree. ([Dropped] is no statement of the owner: it is judged by what
// is known of its writer when it is applied.) A copy of a statement changes nothing, so that whoever was
// removed cannot come back by repeating what once was signed. Only the first
// of two contradicting statements of one issue counts.
//
// It is not safe for concurrent use.
type Membership struct {
	drive      DriveID
	genesis    Genesis
	members    map[Writer]*Member
	removals   map[Writer]*WriterRemoved
	epochs     map[uint32]*EpochBegun // nil for epoch 0
	newest     uint32
	recipients map[[32]byte]*Recipient
	known      map[[32]byte]Ref // where they stand
	boxes      map[uint32]map[[32]byte]*KeyBox
	dropped    map[Writer]*roaring64.Bitmap
}

// NewMembership returns the membership at a drive's genesis: its first writer
// and epoch 0.
func NewMembership(g *Genesis) *Membership {
	m := &Membership{
		drive:      g.DriveID(),
		genesis:    *g,
		members:    map[Writer]*Member{},
		removals:   map[Writer]*WriterRemoved{},
		epochs:     map[uint32]*EpochBegun{0: nil},
		recipients: map[[32]byte]*Recipient{},
		known:      map[[32]byte]Ref{},
		boxes:      map[uint32]map[[32]byte]*KeyBox{},
		dropped:    map[Writer]*roaring64.Bitmap{},
	}
	m.members[0] = &Member{Log: g.Log, Origin: Origin(g.Log[:]), Capabilities: CapAll}
	return m
}

// Placed is a control entry and where it stands.
type Placed struct {
	Writer  Writer
	Index   uint64
	Control Control
}

// ReplayMembership returns what the control entries of a drive, from all its
// logs, add up to, and the errors of those that were refused. The entries of
// one log must be in order; how the logs are mixed does not matter.
func ReplayMembership(g *Genesis, entries []Placed) (*Membership, []error) {
	m := NewMembership(g)
	var refused []error
	// Who may declare blocks dropped has to be known first.
	for _, drops := range []bool{false, true} {
		for _, p := range entries {
			if _, ok := p.Control.(*Dropped); ok != drops {
				continue
			}
			if err := m.Apply(p.Writer, p.Index, p.Control); err != nil {
				refused = append(refused, err)
			}
		}
	}
	return m, refused
}

// Apply adds the control entry at an index of a writer's log. An error
// matches [ErrRefused], and nothing has changed. The entry is kept: the
// caller must not change it afterwards.
func (m *Membership) Apply(from Writer, index uint64, c Control) error {
	if err := m.apply(from, index, c); err != nil {
		return fmt.Errorf("%w: drive %v, entry %v: %w", ErrRefused, m.drive, Ref{from, index}, err)
	}
	return nil
}

func (m *Membership) apply(from Writer, index uint64, c Control) error {
	if s, ok := c.(statement); ok {
		key := m.genesis.Owner
		if c.Type() == TypeSuccession {
			key = m.genesis.Recovery
		}
		if !authorized(s, m.drive, key) {
			return errors.New("the drive's owner has not signed it")
		}
	}
	switch c := c.(type) {
	case *Genesis:
		if from != 0 || index != 0 || *c != m.genesis {
			return errors.New("a second genesis")
		}
		return nil
	case *WriterAdded:
		return m.addWriter(&Member{
			Writer: c.Writer, Log: c.Log, Origin: Origin(c.Log[:]),
			Device: c.Device, Capabilities: c.Capabilities, issue: c.Issue,
		})
	case *Succession:
		return m.addWriter(&Member{
			Writer: c.Writer, Log: c.Log, Origin: Origin(c.Log[:]),
			Capabilities: CapAll, Succeeds: c,
		})
	case *WriterRemoved:
		return m.removeWriter(c)
	case *EpochBegun:
		m.epochs[c.Epoch] = c
		m.newest = max(m.newest, c.Epoch)
		return nil
	case *Recipient:
		id := c.ID()
		if _, ok := m.recipients[id]; !ok {
			m.recipients[id], m.known[id] = c, Ref{from, index}
		}
		return nil
	case *KeyBox:
		boxes := m.boxes[c.Epoch]
		if boxes == nil {
			boxes = map[[32]byte]*KeyBox{}
			m.boxes[c.Epoch] = boxes
		}
		if _, ok := boxes[c.Recipient]; !ok {
			boxes[c.Recipient] = c
		}
		return nil
	case *Dropped:
		return m.drop(from, index, c)
	default:
		return fmt.Errorf("unknown type %d", c.Type())
	}
}

// addWriter makes a writer a member or changes it. A number and a log belong
// to each other for ever.
func (m *Membership) addWriter(add *Member) error {
	for _, o := range m.members {
		if o.Writer != add.Writer && o.Log == add.Log {
			return fmt.Errorf("the log of writer %d is that of writer %d", add.Writer, o.Writer)
		}
	}
	old := m.members[add.Writer]
	if old == nil {
		m.members[add.Writer] = add
		m.setRemoved(add.Writer)
		return nil
	}
	if old.Log != add.Log {
		return fmt.Errorf("writer %d has another log", add.Writer)
	}
	if old.Succeeds != nil && add.Succeeds != nil && *old.Succeeds != *add.Succeeds {
		return fmt.Errorf("writer %d succeeds another log", add.Writer)
	}
	same := old.Device == add.Device && old.Capabilities == add.Capabilities
	if old.issue == add.issue && !same {
		return fmt.Errorf("writer %d was added differently in issue %d", add.Writer, add.issue)
	}
	if old.Succeeds == nil {
		old.Succeeds = add.Succeeds
	}
	if add.issue > old.issue {
		old.Device, old.Capabilities, old.issue = add.Device, add.Capabilities, add.issue
	}
	return nil
}

func (m *Membership) removeWriter(c *WriterRemoved) error {
	old := m.removals[c.Writer]
	switch {
	case old == nil || c.Issue > old.Issue:
		m.removals[c.Writer] = c
		m.setRemoved(c.Writer)
	case c.Issue == old.Issue && (c.Size != old.Size || c.Root != old.Root):
		return fmt.Errorf("writer %d was removed differently in issue %d", c.Writer, c.Issue)
	}
	return nil
}

// setRemoved carries a removal over to the member, whichever came first.
func (m *Membership) setRemoved(w Writer) {
	member, c := m.members[w], m.removals[w]
	if member != nil && c != nil {
		member.Removed, member.Size, member.Root = true, c.Size, c.Root
	}
}

func (m *Membership) drop(from Writer, index uint64, c *Dropped) error {
	by := m.members[from]
	switch {
	case by == nil:
		return fmt.Errorf("%d is no writer of the drive", from)
	case !by.Accepts(index):
		return fmt.Errorf("writer %d was removed", from)
	case from != c.Writer && by.Capabilities&CapDrop == 0:
		return fmt.Errorf("writer %d may not drop blocks of writer %d", from, c.Writer)
	case c.Set == nil:
		return errors.New("no block was dropped")
	}
	set := m.dropped[c.Writer]
	if set == nil {
		set = roaring64.New()
		m.dropped[c.Writer] = set
	}
	set.Or(c.Set)
	return nil
}

// DriveID returns the id of the drive.
func (m *Membership) DriveID() DriveID { return m.drive }

// Genesis returns the drive's genesis entry.
func (m *Membership) Genesis() Genesis { return m.genesis }

// Member returns what is known about a writer.
func (m *Membership) Member(w Writer) (Member, bool) {
	if p := m.members[w]; p != nil {
		return *p, true
	}
	return Member{}, false
}

// Members returns all writers there ever were, by number.
func (m *Membership) Members() []Member {
	all := make([]Member, 0, len(m.members))
	for _, w := range slices.Sorted(maps.Keys(m.members)) {
		all = append(all, *m.members[w])
	}
	return all
}

// MemberOf returns the writer of the log with this origin.
func (m *Membership) MemberOf(origin string) (Member, bool) {
	for _, p := range m.members {
		if p.Origin == origin {
			return *p, true
		}
	}
	return Member{}, false
}

// Epoch returns the newest key epoch.
func (m *Membership) Epoch() uint32 { return m.newest }

// Epochs returns all key epochs, in order.
func (m *Membership) Epochs() []uint32 { return slices.Sorted(maps.Keys(m.epochs)) }

// Box returns the key box of an epoch for a recipient.
func (m *Membership) Box(epoch uint32, recipient [32]byte) (*KeyBox, bool) {
	b, ok := m.boxes[epoch][recipient]
	return b, ok
}

// Boxes returns the key boxes of an epoch, by recipient.
func (m *Membership) Boxes(epoch uint32) []*KeyBox {
	return slices.SortedFunc(maps.Values(m.boxes[epoch]), func(a, b *KeyBox) int {
		return bytes.Compare(a.Recipient[:], b.Recipient[:])
	})
}

// Recipient returns the public key of a recipient of key boxes.
func (m *Membership) Recipient(id [32]byte) (*Recipient, bool) {
	r, ok := m.recipients[id]
	return r, ok
}

// Dropped returns the blocks of a writer that were dropped on purpose. The
// bitmap is the caller's.
func (m *Membership) Dropped(w Writer) *roaring64.Bitmap {
	if set := m.dropped[w]; set != nil {
		return set.Clone()
	}
	return roaring64.New()
}
