package log

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof is matched by every error about a proof that does not prove what
// it should. It says nothing against the log: whoever sent the proof may
// have made a bad one.
var ErrProof = errors.New("proof does not verify")

// proveInclusion returns the RFC 6962 audit path of entry index in the tree
// of the first size entries.
func (t *hashTree) proveInclusion(index, size uint64) ([]tlog.Hash, error) {
	if now := t.size(); index >= size || size > now {
		return nil, fmt.Errorf("no proof of entry %d among %d in a log of %d", index, size, now)
	}
	p, err := tlog.ProveRecord(int64(size), int64(index), t)
	if err != nil {
		return nil, fmt.Errorf("proving entry %d of %d: %w", index, size, err)
	}
	return p, nil
}

// proveConsistency returns the RFC 6962 proof that the tree of the first
// size entries extends that of the first old. It is empty where there is
// nothing to prove: old is 0 or size.
func (t *hashTree) proveConsistency(old, size uint64) ([]tlog.Hash, error) {
	if now := t.size(); old > size || size > now {
		return nil, fmt.Errorf("no proof from %d to %d entries in a log of %d", old, size, now)
	}
	if old == 0 || old == size {
		return nil, nil
	}
	p, err := tlog.ProveTree(int64(size), int64(old), t)
	if err != nil {
		return nil, fmt.Errorf("proving that %d entries extend %d: %w", size, old, err)
	}
	return p, nil
}

// VerifyInclusion verifies that entry number index of the log is entry,
// with an RFC 6962 audit path. Errors match [ErrProof].
func (h Head) VerifyInclusion(index uint64, entry []byte, proof []tlog.Hash) error {
	if index >= h.Size || h.Size > maxTreeSize {
		return fmt.Errorf("%w: entry %d of %d in %s", ErrProof, index, h.Size, h.Origin)
	}
	if err := tlog.CheckRecord(proof, int64(h.Size), tlog.Hash(h.Root), int64(index), LeafHash(entry)); err != nil {
		return fmt.Errorf("%w: entry %d of %d in %s: %w", ErrProof, index, h.Size, h.Origin, err)
	}
	return nil
}

// VerifyConsistency verifies that the log at h extends the log at old, with
// an RFC 6962 consistency proof; where old is empty or has the size of h, the
// proof is empty too. Errors match [ErrProof]. Two heads of one size with
// different roots need no proof: if both were verified, they are a fork, and
// the error matches [ErrFork] as well.
func (h Head) VerifyConsistency(old Head, proof []tlog.Hash) error {
	fail := func(why error) error {
		return fmt.Errorf("%w: from %d to %d entries of %s: %w", ErrProof, old.Size, h.Size, h.Origin, why)
	}
	switch {
	case old.Origin != h.Origin:
		return fail(fmt.Errorf("the older head is of %s", old.Origin))
	case old.Size > h.Size || h.Size > maxTreeSize:
		return fail(errors.New("the size shrinks"))
	case old.Size == h.Size && old.Root != h.Root:
		return fail(ErrFork)
	case old.Size == 0 && old.Root != emptyRoot:
		return fail(errors.New("the older root is not that of an empty tree"))
	case old.Size == 0 || old.Size == h.Size:
		if len(proof) != 0 {
			return fail(fmt.Errorf("%d hashes where none is needed", len(proof)))
		}
		return nil
	}
	if err := tlog.CheckTree(proof, int64(h.Size), tlog.Hash(h.Root), int64(old.Size), tlog.Hash(old.Root)); err != nil {
		return fail(err)
	}
	return nil
}
