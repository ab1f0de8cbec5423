package log

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func logKey(seed byte) [32]byte { return [32]byte(NewSigner(seed32(seed)).Public()) }

// apply applies entries and fails the test if one is refused.
func apply(t *testing.T, m *Membership, from Writer, index uint64, controls ...Control) {
	t.Helper()
	for _, c := range controls {
		if err := m.Apply(from, index, c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMembership(t *testing.T) {
	m := NewMembership(testGenesis())
	first := Member{Writer: 0, Log: logKey(1), Origin: NewSigner(seed32(1)).Origin(), Capabilities: CapAll}
	if got := m.Members(); len(got) != 1 || got[0] != first {
		t.Fatalf("at the genesis: %+v", got)
	}
	apply(t, m, 0, 0, testGenesis())
	apply(t, m, 0, 5, authorize(t, &WriterAdded{Writer: 1, Issue: 1, Log: logKey(2), Device: seed32(5), Capabilities: CapWrite}))
	got, ok := m.MemberOf(NewSigner(seed32(2)).Origin())
	if !ok || got.Writer != 1 || got.Device != seed32(5) || got.Removed || !got.Accepts(1<<40) {
		t.Errorf("writer 1: %+v", got)
	}
	if _, ok := m.MemberOf("hearth.tradle.io/"); ok {
		t.Error("a writer without a log")
	}
	if _, ok := m.Member(9); ok {
		t.Error("writer 9 is known")
	}

	// The first writer's device becomes known, then changes.
	for issue := uint32(1); issue <= 2; issue++ {
		apply(t, m, 0, 6, authorize(t, &WriterAdded{Writer: 0, Issue: issue, Log: logKey(1), Device: seed32(byte(issue)), Capabilities: CapAll}))
		if got, _ := m.Member(0); got.Device != seed32(byte(issue)) {
			t.Errorf("writer 0 after issue %d: %+v", issue, got)
		}
	}

	apply(t, m, 0, 7, authorize(t, &WriterRemoved{Writer: 1, Issue: 1, Size: 10, Root: seed32(3)}))
	if got, _ := m.Member(1); !got.Removed || !got.Accepts(9) || got.Accepts(10) || got.Root != seed32(3) {
		t.Errorf("writer 1 removed: %+v", got)
	}
	// A copy of what once added it does not bring it back.
	apply(t, m, 1, 11, authorize(t, &WriterAdded{Writer: 1, Issue: 1, Log: logKey(2), Device: seed32(5), Capabilities: CapWrite}))
	if got, _ := m.Member(1); !got.Removed {
		t.Error("writer 1 came back")
	}
	// The owner accepts what writer 1 wrote after its removal.
	apply(t, m, 0, 8, authorize(t, &WriterRemoved{Writer: 1, Issue: 2, Size: 20, Root: seed32(4)}))
	apply(t, m, 0, 9, authorize(t, &WriterRemoved{Writer: 1, Issue: 1, Size: 10, Root: seed32(3)}))
	if got, _ := m.Member(1); got.Size != 20 {
		t.Errorf("writer 1 accepted: %+v", got)
	}

	s := authorize(t, &Succession{Writer: 2, Log: logKey(3), Old: seed32(1), OldSize: 5})
	apply(t, m, 2, 0, s)
	if got, _ := m.Member(2); got.Succeeds != s || got.Capabilities != CapAll {
		t.Errorf("writer 2: %+v", got)
	}
	if s.OldOrigin() != "hearth.tradle.io/0101010101010101010101010101010101010101010101010101010101010101" {
		t.Error(s.OldOrigin())
	}

	if m.Epoch() != 0 {
		t.Errorf("epoch %d", m.Epoch())
	}
	apply(t, m, 0, 10, authorize(t, &EpochBegun{Epoch: 2}), authorize(t, &EpochBegun{Epoch: 1}))
	if m.Epoch() != 2 || !reflect.DeepEqual(m.Epochs(), []uint32{0, 1, 2}) {
		t.Errorf("epochs %v", m.Epochs())
	}
	r := authorize(t, testBoxKey(t, RecipientDevice, 1).Recipient())
	box, err := SealBox(m.DriveID(), 2, r, seed32(9))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, m, 0, 11, authorize(t, box), r)
	if got, ok := m.Box(2, r.ID()); !ok || got != box || len(m.Boxes(2)) != 1 || len(m.Boxes(1)) != 0 {
		t.Error("the box is not there")
	}
	if got, ok := m.Recipient(r.ID()); !ok || got != r {
		t.Error("the recipient is not there")
	}

	apply(t, m, 1, 3, &Dropped{Writer: 1, Set: testSet(1, 2)})
	apply(t, m, 0, 12, &Dropped{Writer: 1, Set: testSet(2, 3)})
	if got := m.Dropped(1); !got.Equals(testSet(1, 2, 3)) || !m.Dropped(0).IsEmpty() {
		t.Errorf("dropped %v", got)
	}
	if m.Genesis() != *testGenesis() {
		t.Error("another genesis")
	}
}

func TestMembershipRefuses(t *testing.T) {
	m := NewMembership(testGenesis())
	apply(t, m, 0, 1,
		authorize(t, &WriterAdded{Writer: 1, Issue: 1, Log: logKey(2), Capabilities: CapWrite}),
		authorize(t, &WriterAdded{Writer: 2, Issue: 1, Log: logKey(3), Capabilities: CapAll}),
		authorize(t, &WriterRemoved{Writer: 2, Issue: 1, Size: 5}),
		authorize(t, &Succession{Writer: 3, Log: logKey(4), Old: seed32(1)}))
	before := m.Members()

	stranger := &WriterAdded{Writer: 5, Issue: 1, Log: logKey(5)}
	if err := Authorize(stranger, m.DriveID(), testRecovery); err != nil {
		t.Fatal(err)
	}
	elsewhere := &EpochBegun{Epoch: 1}
	if err := Authorize(elsewhere, DriveID{1}, testOwner); err != nil {
		t.Fatal(err)
	}
	byOwner := &Succession{Writer: 5, Log: logKey(5), Old: seed32(1)}
	if err := Authorize(byOwner, m.DriveID(), testOwner); err != nil {
		t.Fatal(err)
	}
	second := testGenesis()
	second.Created++
	for name, p := range map[string]Placed{
		"unsigned":                  {0, 2, &EpochBegun{Epoch: 1}},
		"signed for another drive":  {0, 2, elsewhere},
		"signed by the wrong key":   {0, 2, stranger},
		"succession by the owner":   {5, 0, byOwner},
		"second genesis":            {0, 0, second},
		"genesis elsewhere":         {0, 1, testGenesis()},
		"genesis in another log":    {1, 0, testGenesis()},
		"another log":               {0, 2, authorize(t, &WriterAdded{Writer: 1, Issue: 2, Log: logKey(9)})},
		"log of another":            {0, 2, authorize(t, &WriterAdded{Writer: 4, Issue: 1, Log: logKey(2)})},
		"same issue":                {0, 2, authorize(t, &WriterAdded{Writer: 1, Issue: 1, Log: logKey(2), Capabilities: CapAll})},
		"removed otherwise":         {0, 2, authorize(t, &WriterRemoved{Writer: 2, Issue: 1, Size: 6})},
		"succeeds another":          {0, 2, authorize(t, &Succession{Writer: 3, Log: logKey(4), Old: seed32(2)})},
		"dropped by a stranger":     {9, 0, &Dropped{Writer: 9, Set: testSet(1)}},
		"dropped without the right": {1, 0, &Dropped{Writer: 0, Set: testSet(1)}},
		"dropped after removal":     {2, 5, &Dropped{Writer: 2, Set: testSet(1)}},
		"dropped nothing":           {0, 2, &Dropped{Writer: 0}},
	} {
		if err := m.Apply(p.Writer, p.Index, p.Control); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(m.Members(), before) || m.Epoch() != 0 || !m.Dropped(0).IsEmpty() || !m.Dropped(2).IsEmpty() {
			t.Errorf("%s: something has changed", name)
		}
	}
}

// No byte of a statement can be changed without its signature failing.
func TestStatementsTampered(t *testing.T) {
	for _, s := range sampleControls(t) {
		if _, ok := s.control.(statement); !ok {
			continue
		}
		for i := range s.entry {
			s.entry[i] ^= 1
			if _, c, err := ParseEntry(s.entry); err == nil && c != nil {
				if err := NewMembership(testGenesis()).Apply(0, 1, c); !errors.Is(err, ErrRefused) {
					t.Errorf("%s with byte %d changed: %v", s.name, i, err)
				}
			}
			s.entry[i] ^= 1
		}
	}
}

// However the logs of the writers are mixed, the statements of the owner add
// up to the same.
func TestMembershipOrder(t *testing.T) {
	var entries []Placed
	add := func(c Control) { entries = append(entries, Placed{0, uint64(len(entries) + 1), authorize(t, c)}) }
	for w := range Writer(4) {
		for issue := uint32(1); issue <= 3; issue++ {
			add(&WriterAdded{Writer: w, Issue: issue, Log: logKey(byte(w) + 1), Device: seed32(byte(issue)), Capabilities: Capability(issue)})
			if w > 1 {
				add(&WriterRemoved{Writer: w, Issue: issue, Size: uint64(issue), Root: seed32(byte(issue))})
			}
		}
	}
	add(&Succession{Writer: 2, Log: logKey(3), Old: seed32(7)})
	add(&Succession{Writer: 9, Log: logKey(9), Old: seed32(7)})
	add(&EpochBegun{Epoch: 1})
	add(&EpochBegun{Epoch: 2})
	entries = append(entries, Placed{1, 3, &Dropped{Writer: 0, Set: testSet(4)}}, Placed{3, 2, &Dropped{Writer: 1, Set: testSet(5)}})
	want, refused := ReplayMembership(testGenesis(), entries)
	if len(refused) != 0 {
		t.Fatal(refused)
	}
	rapid.Check(t, func(t *rapid.T) {
		mixed := append([]Placed(nil), entries...)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		got, refused := ReplayMembership(testGenesis(), mixed)
		if len(refused) != 0 || !reflect.DeepEqual(got.Members(), want.Members()) || got.Epoch() != want.Epoch() ||
			!got.Dropped(0).Equals(want.Dropped(0)) || !got.Dropped(1).Equals(want.Dropped(1)) {
			t.Fatalf("%v\n%+v\nwant\n%+v", refused, got.Members(), want.Members())
		}
	})
}

// FuzzMembership applies whatever decodes: nothing unsigned may change who
// is a member.
func FuzzMembership(f *testing.F) {
	for _, s := range sampleControls(f) {
		f.Add(s.entry, uint16(0), uint64(1))
	}
	f.Fuzz(func(t *testing.T, entry []byte, from uint16, index uint64) {
		_, c, err := ParseEntry(entry)
		if err != nil || c == nil {
			return
		}
		m := NewMembership(testGenesis())
		before := m.Members()
		if err := m.Apply(Writer(from), index, c); err != nil && !reflect.DeepEqual(m.Members(), before) {
			t.Fatalf("refused, yet it changed %+v", m.Members())
		}
	})
}
