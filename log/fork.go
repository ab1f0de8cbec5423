package log

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Two branches of one log.
//
// A newer head that is signed and does not continue the one that is known may
// be that of a forked log, or come with a bad proof. The proof tells which,
// whoever sends it: with a consistency proof comes the root that the newer
// tree had at the known size, its base. If the proof leads from the base to
// the newer head, which its writer has signed, then the newer tree has that
// root at that size, and where it is not the known one the writer has signed
// two histories. If it does not lead there, who sent it lies.

// ErrUndecided is matched by the error about a signed head of which it cannot
// be told whether it continues what is known. [Log.AddBase] makes a proof by
// which it can.
var ErrUndecided = errors.New("it cannot be told whether one head continues the other")

// forkError has the two heads of a log that contradict each other, and what
// proves it, if their sizes differ. It matches ErrFork.
type forkError struct {
	known, other Head
	base         []byte // root of the longer one's tree at the size of the shorter one
	consistency  []tlog.Hash
}

func (e *forkError) Error() string {
	return fmt.Sprintf("%v: %s: the heads of size %d and size %d contradict each other", ErrFork, e.known.Origin, e.known.Size, e.other.Size)
}

func (e *forkError) Is(target error) bool { return target == ErrFork }

// AddBase adds to a proof what tells a fork from a bad proof: the root that
// this log has at the size p.Old, and a consistency proof from there. The edges
// are added as well, for a reader that knows a head and has lost the tree.
func (l *Log) AddBase(p *HeadProof) error {
	head, err := l.verifier.Verify(p.Note)
	if err != nil || p.Old == 0 || p.Old >= head.Size {
		return err
	}
	base, err := l.tree.rootAt(p.Old)
	if err != nil {
		return err
	}
	p.Base = base[:]
	if len(p.Consistency) == 0 {
		if p.Consistency, err = l.tree.proveConsistency(p.Old, head.Size); err != nil {
			return err
		}
	}
	if len(p.Edges) == 0 {
		p.Edges, err = l.tree.edges(head.Size)
	}
	return err
}

// branch judges a proof of a signed head that did not lead on from a root at
// the size p.Old: the error is that of a fork, or matches ErrProof, and
// ErrUndecided as well if the proof has no base.
func branch(known, head Head, root [32]byte, p *HeadProof) error {
	switch {
	case len(p.Base) == 0:
		return fmt.Errorf("%w: what was sent does not lead to the root of %d entries: %w", ErrProof, head.Size, ErrUndecided)
	case len(p.Base) != hashSize || p.Old == 0 || p.Old >= head.Size:
		return fmt.Errorf("%w: no base at %d of %d entries", ErrProof, p.Old, head.Size)
	}
	base := Head{Origin: head.Origin, Size: p.Old, Root: [32]byte(p.Base)}
	if err := head.VerifyConsistency(base, p.Consistency); err != nil {
		return err
	}
	if base.Root == root {
		return fmt.Errorf("%w: %d entries are continued, but not by what was sent", ErrProof, p.Old)
	}
	e := &forkError{known: known, other: head}
	if p.Old == known.Size {
		e.base, e.consistency = p.Base, p.Consistency
	}
	return e
}

// Compare tells how a verified head relates to what is known of a log: nil if
// they lie on one branch. The error matches ErrFork if they contradict each
// other, and then both are kept as evidence; ErrUndecided if that cannot be
// told, which for a newer head takes a proof from a size that the log has,
// with its base (p; else nil); and ErrProof if that proof is wrong.
func (s *Store) Compare(l *Log, head Head, p *HeadProof) error {
	err := l.compare(head, p)
	var fork *forkError
	if errors.As(err, &fork) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fork(fork)
	}
	return err
}

func (l *Log) compare(head Head, p *HeadProof) error {
	have, known := l.Head(), l.Known()
	undecided := func(why error) error {
		return fmt.Errorf("heads of %d and %d entries of %s: %w: %w", known.Size, head.Size, head.Origin, ErrUndecided, why)
	}
	switch {
	case head.Size == known.Size && head.Root != known.Root:
		return &forkError{known: known, other: head}
	case head.Size == known.Size:
		return nil
	case head.Size < known.Size:
		if head.Size > have.Size || head.Size == 0 {
			return undecided(ErrAbsent)
		}
		root, err := l.tree.rootAt(head.Size)
		if err != nil {
			return undecided(err)
		}
		if root == head.Root {
			return nil
		}
		e := &forkError{known: have, other: head, base: root[:]}
		if e.consistency, err = l.tree.proveConsistency(head.Size, have.Size); err != nil {
			e.base = nil // it is known here all the same
		}
		return e
	case p == nil:
		return undecided(ErrAbsent)
	case p.Old == 0 || p.Old > have.Size:
		return undecided(ErrMoved)
	}
	root, err := l.tree.rootAt(p.Old)
	if err != nil {
		return undecided(err)
	}
	at := Head{Origin: head.Origin, Size: p.Old, Root: root}
	if head.VerifyConsistency(at, p.Consistency) == nil {
		return nil
	}
	return branch(have, head, root, p)
}

// NoteOvertaken remembers that others have a signed head of this device's own
// log that is newer than any that it knows of, until the store is closed.
func (s *Store) NoteOvertaken(head Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overtaken = max(s.overtaken, head.Size)
}

// evidence is what is kept of a fork.
func (e *forkError) evidence() Fork {
	f := Fork{Origin: e.known.Origin, Known: string(e.known.Note), Other: string(e.other.Note)}
	if len(e.base) > 0 && e.known.Size != e.other.Size {
		var proof []byte
		for _, h := range e.consistency {
			proof = append(proof, h[:]...)
		}
		f.Base, f.Proof = hex.EncodeToString(e.base), base64.StdEncoding.EncodeToString(proof)
	}
	return f
}

// Verify checks, with nothing but the log's key, that the heads are signed and
// contradict each other. The error matches ErrUndecided if they are signed and
// the proof is not there.
func (f *Fork) Verify(v *Verifier) error {
	known, err := v.Verify([]byte(f.Known))
	if err != nil {
		return err
	}
	other, err := v.Verify([]byte(f.Other))
	if err != nil {
		return err
	}
	short, long := known, other
	if short.Size > long.Size {
		short, long = long, short
	}
	if short.Size == long.Size {
		if short.Root == long.Root {
			return fmt.Errorf("%w: the two heads are one", ErrProof)
		}
		return nil
	}
	if f.Base == "" {
		return fmt.Errorf("heads of %d and %d entries of %s: %w", known.Size, other.Size, f.Origin, ErrUndecided)
	}
	base, err := hex.DecodeString(f.Base)
	if err != nil || len(base) != hashSize || bytes.Equal(base, short.Root[:]) {
		return fmt.Errorf("%w: %q is no other root", ErrProof, f.Base)
	}
	proof, err := base64.StdEncoding.DecodeString(f.Proof)
	if err != nil || len(proof)%hashSize != 0 {
		return fmt.Errorf("%w: a proof of %d bytes", ErrProof, len(proof))
	}
	var hashes []tlog.Hash
	for ; len(proof) > 0; proof = proof[hashSize:] {
		hashes = append(hashes, tlog.Hash(proof[:hashSize]))
	}
	return long.VerifyConsistency(Head{Origin: long.Origin, Size: short.Size, Root: [32]byte(base)}, hashes)
}
