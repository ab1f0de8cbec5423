package log

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
)

func testBoxKey(t testing.TB, kind RecipientKind, seed byte) *BoxKey {
	t.Helper()
	k, err := NewBoxKey(kind, seed32(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyBox(t *testing.T) {
	drive := testGenesis().DriveID()
	readKey := seed32(0x77)
	device := testBoxKey(t, RecipientDevice, 1)
	box, err := SealBox(drive, 3, device.Recipient(), readKey)
	if err != nil {
		t.Fatal(err)
	}
	authorize(t, box)
	entry, err := EncodeControl(box)
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := ParseEntry(entry)
	if err != nil {
		t.Fatal(err)
	}
	box = c.(*KeyBox)
	got, err := OpenBox(drive, box, testBoxKey(t, RecipientDevice, 1))
	if err != nil || got != readKey {
		t.Fatalf("%x, %v", got, err)
	}

	refused := func(what string, drive DriveID, box KeyBox, key *BoxKey) {
		t.Helper()
		if got, err := OpenBox(drive, &box, key); !errors.Is(err, ErrBox) || got != [32]byte{} {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
	refused("another drive", DriveID{1}, *box, device)
	refused("another device", drive, *box, testBoxKey(t, RecipientDevice, 2))
	refused("a link of the same seed", drive, *box, testBoxKey(t, RecipientLink, 1))
	changed := *box
	changed.Epoch++
	refused("another epoch", drive, changed, device)
	other := testBoxKey(t, RecipientDevice, 2)
	changed = *box
	changed.Recipient = other.ID()
	refused("readdressed", drive, changed, other)
	for i := range box.Sealed {
		changed = *box
		changed.Sealed[i] ^= 1
		refused("changed", drive, changed, device)
	}
}

func TestBoxKeysDiffer(t *testing.T) {
	seen := map[[32]byte]bool{}
	for _, kind := range []RecipientKind{RecipientDevice, RecipientLink, RecipientRecovery, RecipientHolder} {
		for seed := range byte(2) {
			id := testBoxKey(t, kind, seed).ID()
			if seen[id] || id != testBoxKey(t, kind, seed).Recipient().ID() {
				t.Errorf("kind %d, seed %d: id %x", kind, seed, id)
			}
			seen[id] = true
		}
	}
	for _, kind := range []RecipientKind{0, 5} {
		if _, err := NewBoxKey(kind, seed32(1)); err == nil {
			t.Errorf("a key of kind %d", kind)
		}
	}
	if _, err := SealBox(DriveID{}, 0, &Recipient{}, seed32(1)); err == nil {
		t.Error("sealed to nobody")
	}
	bad := &Recipient{Kind: RecipientLink}
	for i := range bad.Key {
		bad.Key[i] = 0xff // coefficients out of range
	}
	if _, err := SealBox(DriveID{}, 0, bad, seed32(1)); err == nil {
		t.Error("sealed to bytes that are no key")
	}
}

// boxVector is a golden key box.
type boxVector struct {
	Drive     hexBytes
	Seed      hexBytes
	Kind      RecipientKind
	Recipient hexBytes // the entry that makes the public key known
	ID        hexBytes
	ReadKey   hexBytes
	Box       hexBytes // the entry
}

func readBoxVector(t testing.TB) (v boxVector, box *KeyBox) {
	t.Helper()
	b, err := os.ReadFile(goldenPath("keybox.json"))
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := ParseEntry(v.Box)
	if err != nil {
		t.Fatal(err)
	}
	return v, c.(*KeyBox)
}

// A box of the released format must open for ever.
func TestGoldenKeyBox(t *testing.T) {
	if *update {
		drive, id := testGenesis().DriveID(), testBoxKey(t, RecipientLink, 0x44).ID()
		seed, readKey := seed32(0x44), seed32(0x99)
		r := authorize(t, testBoxKey(t, RecipientLink, 0x44).Recipient())
		box, err := SealBox(drive, 1, r, readKey)
		if err != nil {
			t.Fatal(err)
		}
		recipient, err := EncodeControl(r)
		if err != nil {
			t.Fatal(err)
		}
		entry, err := EncodeControl(authorize(t, box))
		if err != nil {
			t.Fatal(err)
		}
		goldenJSON(t, "keybox.json", boxVector{drive[:], seed[:], RecipientLink, recipient, id[:], readKey[:], entry})
	}
	v, box := readBoxVector(t)
	key, err := NewBoxKey(v.Kind, [32]byte(v.Seed))
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := ParseEntry(v.Recipient)
	if err != nil || c.(*Recipient).Key != key.pub || key.ID() != [32]byte(v.ID) {
		t.Fatalf("the key of the seed has changed: %v", err)
	}
	got, err := OpenBox(DriveID(v.Drive), box, key)
	if err != nil || got != [32]byte(v.ReadKey) {
		t.Fatalf("%x, %v", got, err)
	}
}

func FuzzOpenBox(f *testing.F) {
	// The golden box: one made here would differ in each fuzzing process.
	v, box := readBoxVector(f)
	key := testBoxKey(f, v.Kind, v.Seed[0])
	f.Add(box.Sealed[:], box.Epoch)
	f.Fuzz(func(t *testing.T, sealed []byte, epoch uint32) {
		b := KeyBox{Epoch: epoch, Kind: box.Kind, Recipient: box.Recipient, Signature: box.Signature}
		copy(b.Sealed[:], sealed)
		got, err := OpenBox(DriveID(v.Drive), &b, key)
		if b == *box {
			if err != nil || got != [32]byte(v.ReadKey) {
				t.Fatalf("%x, %v", got, err)
			}
		} else if !errors.Is(err, ErrBox) {
			t.Fatalf("a changed box opened: %x, %v", got, err)
		}
	})
}
