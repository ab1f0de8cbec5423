package log

import (
	"errors"
	iofs "io/fs"
	"slices"
)

// Fork is the evidence that a log has forked: two signed heads of which
// neither continues the other.
type Fork struct {
	Origin string `json:"origin"`
	Known  string `json:"known"` // signed note of the head that was known
	Other  string `json:"other"` // signed note of the head that contradicts it
	// Of heads of two sizes: the root that the longer one's tree has at the
	// size of the shorter one, in hex, and the consistency proof from there,
	// base64. Empty if it was not to be had.
	Base  string `json:"base,omitempty"`
	Proof string `json:"proof,omitempty"`
}

// headsFile is the file heads: the newest head that was verified of each log,
// so that no writer, this device included, can go back unnoticed. It cannot be
// rebuilt.
type headsFile struct {
	Heads map[string]string `json:"heads"` // signed notes by origin
	Forks []Fork            `json:"forks,omitempty"`
}

// maxForks bounds the evidence that is kept, and logForks that of one log: a
// single one tells, and both branches may grow.
const (
	maxForks = 64
	logForks = 4
)

func (s *Store) loadHeads() error {
	s.heads.Heads = make(map[string]string)
	err := readChecked(s.disk, s.path("heads"), &s.heads)
	if errors.Is(err, ErrDamaged) {
		// Forgetting the heads is better than losing the drive; it is said.
		s.heads = headsFile{Heads: make(map[string]string)}
		s.note(s.path("heads"), err)
		return nil
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if s.heads.Heads == nil {
		s.heads.Heads = make(map[string]string)
	}
	return nil
}

// Remembered returns the newest head that was remembered of the log with this
// verifier; false if there is none.
func (s *Store) Remembered(v *Verifier) (Head, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remembered(v)
}

func (s *Store) remembered(v *Verifier) (Head, bool) {
	text, ok := s.heads.Heads[v.Origin()]
	if !ok {
		return Head{}, false
	}
	h, err := v.Verify([]byte(text))
	return h, err == nil
}

// Remember makes a verified head the newest that is known of its log, durably.
// rootAt tells the root of a smaller tree under the head, as the log itself
// or a verified consistency proof does. A head that is no successor of the
// remembered one is refused with ErrFork, and both are kept as evidence; one
// that is older but lies on the same branch changes nothing.
func (s *Store) Remember(v *Verifier, head Head, rootAt func(size uint64) ([32]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.remembered(v)
	if ok {
		if known.Size >= head.Size {
			if known.Size == head.Size && known.Root != head.Root {
				return s.fork(&forkError{known: known, other: head})
			}
			return nil
		}
		root, err := rootAt(known.Size)
		if err != nil {
			return err
		}
		if root != known.Root {
			return s.fork(&forkError{known: known, other: head})
		}
	}
	s.heads.Heads[v.Origin()] = string(head.Note)
	return writeChecked(s.disk, s.path("heads"), &s.heads)
}

// fork keeps the evidence of a fork and returns the error. With mu held.
func (s *Store) fork(err *forkError) error {
	f := err.evidence()
	of := 0
	for _, had := range s.heads.Forks {
		if had.Origin == f.Origin {
			of++
		}
	}
	if slices.Contains(s.heads.Forks, f) || of >= logForks || len(s.heads.Forks) >= maxForks {
		return err
	}
	s.heads.Forks = append(s.heads.Forks, f)
	if failed := writeChecked(s.disk, s.path("heads"), &s.heads); failed != nil {
		return errors.Join(err, failed)
	}
	return err
}

// Forks returns the evidence of forks.
func (s *Store) Forks() []Fork {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Fork(nil), s.heads.Forks...)
}
