package log

import (
	"errors"
	"fmt"
	iofs "io/fs"
)

// Fork is the evidence that a log has forked: two signed heads of which
// neither continues the other.
type Fork struct {
	Origin string `json:"origin"`
	Known  string `json:"known"` // signed note of the head that was known
	Other  string `json:"other"` // signed note of the head that contradicts it
}

// headsFile is the file heads: the newest head that was verified of each log,
// so that no writer, this device included, can go back unnoticed. It cannot be
// rebuilt.
type headsFile struct {
	Heads map[string]string `json:"heads"` // signed notes by origin
	Forks []Fork            `json:"forks,omitempty"`
}

// maxForks bounds the evidence that is kept.
const maxForks = 64

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
				return s.keepFork(known, head)
			}
			return nil
		}
		root, err := rootAt(known.Size)
		if err != nil {
			return err
		}
		if root != known.Root {
			return s.keepFork(known, head)
		}
	}
	s.heads.Heads[v.Origin()] = string(head.Note)
	return writeChecked(s.disk, s.path("heads"), &s.heads)
}

// keepFork keeps the evidence of a fork and returns the error.
func (s *Store) keepFork(known, other Head) error {
	err := fmt.Errorf("%w: %s: size %d and size %d contradict each other", ErrFork, known.Origin, known.Size, other.Size)
	f := Fork{Origin: known.Origin, Known: string(known.Note), Other: string(other.Note)}
	for _, have := range s.heads.Forks {
		if have == f {
			return err
		}
	}
	if len(s.heads.Forks) < maxForks {
		s.heads.Forks = append(s.heads.Forks, f)
	}
	return errors.Join(err, writeChecked(s.disk, s.path("heads"), &s.heads))
}

// Forks returns the evidence of forks.
func (s *Store) Forks() []Fork {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Fork(nil), s.heads.Forks...)
}

// checkRemembered compares a log that was just opened with what is remembered
// of it.
func (s *Store) checkRemembered(l *Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.remembered(l.verifier)
	if !ok {
		return nil
	}
	head := l.Head()
	if head.Size < known.Size {
		return fmt.Errorf("%s: %w: it has %d entries, but once had %d", l.dir, ErrRolledBack, head.Size, known.Size)
	}
	root, err := l.Root(known.Size)
	if err != nil {
		return err
	}
	if root != known.Root {
		return s.keepFork(known, head)
	}
	return nil
}
