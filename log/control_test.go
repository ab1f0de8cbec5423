package log

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// Keys of the drive that the tests of control entries are about.
var (
	testOwner    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x0a}, 32))
	testRecovery = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x0b}, 32))
)

func publicKey(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

func testGenesis() *Genesis {
	return &Genesis{
		Format: FormatVersion, Nonce: seed32(0x11),
		Owner: publicKey(testOwner), Recovery: publicKey(testRecovery),
		Log: [32]byte(NewSigner(seed32(1)).Public()), Created: 1795341845,
	}
}

// authorize signs a statement about the test drive and returns it.
func authorize[C Control](t testing.TB, c C) C {
	t.Helper()
	key := testOwner
	if c.Type() == TypeSuccession {
		key = testRecovery
	}
	if err := Authorize(c, testGenesis().DriveID(), key); err != nil {
		t.Fatal(err)
	}
	return c
}

func testSet(values ...uint64) *roaring64.Bitmap { return roaring64.BitmapOf(values...) }

type sampleControl struct {
	name    string
	control Control
	entry   []byte
}

// sampleControls returns one control entry of each type. The key box is not
// a real one, as those differ each time.
func sampleControls(t testing.TB) []sampleControl {
	t.Helper()
	link, err := NewBoxKey(RecipientLink, seed32(0x44))
	if err != nil {
		t.Fatal(err)
	}
	box := &KeyBox{Epoch: 1, Kind: RecipientLink, Recipient: link.ID()}
	for i := range box.Sealed {
		box.Sealed[i] = byte(i)
	}
	second := [32]byte(NewSigner(seed32(2)).Public())
	samples := []sampleControl{
		{name: "genesis", control: testGenesis()},
		{name: "writer added", control: authorize(t, &WriterAdded{
			Writer: 1, Issue: 1, Log: second, Device: seed32(0x22), Capabilities: CapWrite})},
		{name: "writer removed", control: authorize(t, &WriterRemoved{
			Writer: 1, Issue: 1, Size: 1000, Root: seed32(0x33)})},
		{name: "epoch begun", control: authorize(t, &EpochBegun{Epoch: 1})},
		{name: "recipient", control: authorize(t, link.Recipient())},
		{name: "key box", control: authorize(t, box)},
		{name: "succession", control: authorize(t, &Succession{
			Writer: 2, Log: [32]byte(NewSigner(seed32(3)).Public()),
			Old: seed32(0x55), OldSize: 77, OldRoot: seed32(0x66)})},
		{name: "dropped", control: &Dropped{Writer: 0, Set: testSet(0, 1, 2, 300, 302, 1<<40)}},
	}
	for i := range samples {
		entry, err := EncodeControl(samples[i].control)
		if err != nil {
			t.Fatal(err)
		}
		samples[i].entry = entry
	}
	return samples
}

func TestControlRoundTrip(t *testing.T) {
	for _, s := range sampleControls(t) {
		d, c, err := ParseEntry(s.entry)
		if err != nil || d != (Descriptor{}) {
			t.Fatalf("%s: %v, %v", s.name, d, err)
		}
		if want, ok := s.control.(*Dropped); ok {
			if got := c.(*Dropped); got.Writer != want.Writer || !got.Set.Equals(want.Set) {
				t.Errorf("%s: got %v", s.name, got.Set)
			}
		} else if !reflect.DeepEqual(c, s.control) {
			t.Errorf("%s: got %+v", s.name, c)
		}
		if s.name != "dropped" { // any cut between two of its ranges is an entry
			for n := range s.entry {
				if _, _, err := ParseEntry(s.entry[:n]); !errors.Is(err, ErrEntry) {
					t.Errorf("%s cut to %d bytes: %v", s.name, n, err)
				}
			}
		}
		if _, _, err := ParseEntry(append(bytes.Clone(s.entry), 0)); !errors.Is(err, ErrEntry) {
			t.Errorf("%s and a byte: %v", s.name, err)
		}
	}
}

func TestGoldenControls(t *testing.T) {
	type vector struct {
		Name  string
		Drive string
		Entry hexBytes
		Leaf  hexBytes
	}
	var vectors []vector
	add := func(name string, entry []byte) {
		leaf := LeafHash(entry)
		vectors = append(vectors, vector{name, testGenesis().DriveID().String(), entry, leaf[:]})
	}
	add("descriptor", Describe([]byte("a stored block")).Entry())
	for _, s := range sampleControls(t) {
		add(s.name, s.entry)
	}
	goldenJSON(t, "entries.json", vectors)

	// What was released must still decode.
	var released []vector
	b, err := os.ReadFile(goldenPath("entries.json"))
	if err == nil {
		err = json.Unmarshal(b, &released)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range released {
		if _, _, err := ParseEntry(v.Entry); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestDriveIDIsHashOfGenesis(t *testing.T) {
	g := testGenesis()
	entry, err := EncodeControl(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(entry) != 140 {
		t.Errorf("genesis of %d bytes", len(entry))
	}
	again, c, err := ParseEntry(entry)
	if err != nil || c.(*Genesis).DriveID() != g.DriveID() {
		t.Errorf("%v, %v, %v", again, c, err)
	}
}

func TestEncodeControlRefuses(t *testing.T) {
	newer := testGenesis()
	newer.Format++
	zero := testGenesis()
	zero.Format = 0
	for name, c := range map[string]Control{
		"nothing":           nil,
		"newer format":      newer,
		"format 0":          zero,
		"issue 0":           &WriterAdded{Writer: 1},
		"removal, issue 0":  &WriterRemoved{Writer: 1},
		"epoch 0":           &EpochBegun{},
		"recipient kind 0":  &Recipient{},
		"recipient kind 5":  &Recipient{Kind: 5},
		"box kind 0":        &KeyBox{},
		"size beyond any":   &WriterRemoved{Writer: 1, Issue: 1, Size: maxTreeSize + 1},
		"old size":          &Succession{Writer: 1, OldSize: maxTreeSize + 1},
		"no set":            &Dropped{},
		"empty set":         &Dropped{Set: testSet()},
		"block beyond any":  &Dropped{Set: testSet(maxTreeSize)},
		"block at the edge": &Dropped{Set: testSet(1<<64 - 1)},
	} {
		if b, err := EncodeControl(c); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %x, %v", name, b, err)
		}
	}
	if _, err := EncodeControl(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("newer format: %v", err)
	}
	if err := Authorize(testGenesis(), DriveID{}, testOwner); err == nil {
		t.Error("signed a genesis")
	}
}
