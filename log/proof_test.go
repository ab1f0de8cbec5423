package log

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// testTree returns a tree over n entries and the entries.
func testTree(n int) (*hashTree, [][]byte) {
	tree := newHashTree(nil, "")
	entries := make([][]byte, n)
	for i := range entries {
		entries[i] = Describe([]byte{byte(i >> 8), byte(i)}).Entry()
		tree.append(LeafHash(entries[i]))
	}
	return tree, entries
}

// headAt returns the head of the first size entries.
func headAt(t rapid.TB, tree *hashTree, size uint64) Head {
	t.Helper()
	root, err := tree.rootAt(size)
	if err != nil {
		t.Fatal(err)
	}
	return Head{Origin: "o", Size: size, Root: root}
}

func TestInclusionProofs(t *testing.T) {
	tree, entries := testTree(700)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, 700).Draw(t, "size")
		index := rapid.Uint64Range(0, size-1).Draw(t, "index")
		h := headAt(t, tree, size)
		proof, err := tree.proveInclusion(index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyInclusion(index, entries[index], proof); err != nil {
			t.Fatal(err)
		}
		refused := func(what string, h Head, index uint64, entry []byte, proof []tlog.Hash) {
			if err := h.VerifyInclusion(index, entry, proof); !errors.Is(err, ErrProof) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		other := rapid.Uint64Range(0, 699).Filter(func(i uint64) bool { return i != index }).Draw(t, "other")
		refused("another entry", h, index, entries[other], proof)
		refused("another index", h, other, entries[index], proof)
		refused("index beyond the log", h, size, entries[index], proof)
		refused("too long", h, index, entries[index], append(slices.Clone(proof), tlog.Hash{}))
		changed := h
		changed.Root[3] ^= 1
		refused("another root", changed, index, entries[index], proof)
		if len(proof) > 0 {
			refused("too short", h, index, entries[index], proof[1:])
			flipped := slices.Clone(proof)
			flipped[rapid.IntRange(0, len(proof)-1).Draw(t, "hash")][5] ^= 4
			refused("a hash changed", h, index, entries[index], flipped)
		}
	})
}

func TestConsistencyProofs(t *testing.T) {
	tree, _ := testTree(700)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(0, 700).Draw(t, "size")
		older := rapid.Uint64Range(0, size).Draw(t, "older")
		h, old := headAt(t, tree, size), headAt(t, tree, older)
		proof, err := tree.proveConsistency(older, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.VerifyConsistency(old, proof); err != nil {
			t.Fatal(err)
		}
		refused := func(what string, h, old Head, proof []tlog.Hash) {
			if err := h.VerifyConsistency(old, proof); !errors.Is(err, ErrProof) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		refused("too long", h, old, append(slices.Clone(proof), tlog.Hash{}))
		changed := old
		changed.Root[0] ^= 1
		refused("another old root", h, changed, proof)
		if older > 0 {
			// From an empty log every log follows, so any root is right.
			changed = h
			changed.Root[0] ^= 1
			refused("another root", changed, old, proof)
		}
		changed = old
		changed.Origin = "p"
		refused("another log", h, changed, proof)
		if older < size {
			refused("backwards", old, h, proof)
		}
		if len(proof) > 0 {
			refused("too short", h, old, proof[1:])
			flipped := slices.Clone(proof)
			flipped[rapid.IntRange(0, len(proof)-1).Draw(t, "hash")][5] ^= 4
			refused("a hash changed", h, old, flipped)
		}
	})
}

func TestProofsRefuse(t *testing.T) {
	tree, entries := testTree(10)
	for _, bad := range [][2]uint64{{10, 10}, {0, 0}, {0, 11}, {5, 5}} {
		if _, err := tree.proveInclusion(bad[0], bad[1]); err == nil {
			t.Errorf("proved entry %d of %d", bad[0], bad[1])
		}
	}
	for _, bad := range [][2]uint64{{5, 4}, {5, 11}} {
		if _, err := tree.proveConsistency(bad[0], bad[1]); err == nil {
			t.Errorf("proved %d to %d", bad[0], bad[1])
		}
	}
	if _, err := tree.rootAt(11); err == nil {
		t.Error("root beyond the log")
	}
	// Sizes at the edge of int64 would keep package tlog busy for ever.
	huge := Head{Size: 1<<63 - 1}
	if err := huge.VerifyInclusion(1<<62+5, entries[0], nil); !errors.Is(err, ErrProof) {
		t.Error(err)
	}
	if err := huge.VerifyConsistency(Head{Size: 1<<62 + 1}, nil); !errors.Is(err, ErrProof) {
		t.Error(err)
	}
	a, b := headAt(t, tree, 5), headAt(t, tree, 5)
	if err := a.VerifyConsistency(b, nil); err != nil {
		t.Errorf("a head contradicts itself: %v", err)
	}
	b.Root[0] ^= 1
	if err := a.VerifyConsistency(b, nil); !errors.Is(err, ErrFork) || !errors.Is(err, ErrProof) {
		t.Errorf("two roots of one size: %v", err)
	}
}

// FuzzProofs feeds proofs that were not made by a tree.
func FuzzProofs(f *testing.F) {
	f.Add(uint64(7), uint64(3), []byte("01234567890123456789012345678901"))
	f.Fuzz(func(t *testing.T, size, index uint64, raw []byte) {
		var proof []tlog.Hash
		for ; len(raw) >= hashSize; raw = raw[hashSize:] {
			proof = append(proof, tlog.Hash(raw[:hashSize]))
		}
		h := Head{Size: size, Root: seed32(1)}
		if err := h.VerifyInclusion(index, []byte("entry"), proof); !errors.Is(err, ErrProof) {
			t.Fatal(err)
		}
		old := Head{Size: index, Root: seed32(2)}
		if err := h.VerifyConsistency(old, proof); !errors.Is(err, ErrProof) {
			t.Fatal(err)
		}
	})
}

func TestGoldenTree(t *testing.T) {
	tree, entries := testTree(700)
	type vector struct {
		Entries     int
		FirstEntry  hexBytes
		Roots       map[uint64]hexBytes
		Inclusion   []hexBytes // of entry 300 in 700
		Consistency []hexBytes // from 300 to 700
	}
	v := vector{Entries: len(entries), FirstEntry: entries[0], Roots: map[uint64]hexBytes{}}
	for _, size := range []uint64{0, 1, 2, 3, 255, 256, 257, 700} {
		h := headAt(t, tree, size)
		v.Roots[size] = h.Root[:]
	}
	inclusion, err := tree.proveInclusion(300, 700)
	if err != nil {
		t.Fatal(err)
	}
	consistency, err := tree.proveConsistency(300, 700)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range inclusion {
		v.Inclusion = append(v.Inclusion, h[:])
	}
	for _, h := range consistency {
		v.Consistency = append(v.Consistency, h[:])
	}
	goldenJSON(t, "tree.json", v)
}
