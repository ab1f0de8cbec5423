package parcel

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Partial is what an unfinished transfer left in a destination.
type Partial struct {
	ID      ID
	From    string // the sender's display name, any bytes
	Started time.Time
	Files   int   // of the whole transfer
	Bytes   int64 // likewise
	// Placed: everything arrived and is in its place; only the sender did not
	// hear of it. Discarding it loses nothing but that news.
	Placed bool
	// Busy: a transfer into it runs now.
	Busy bool
}

// Partials lists the partial folders in a destination, in no order. Only
// those of this user count. It changes nothing.
func Partials(dir string) ([]Partial, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("partials: %w", err)
	}
	defer root.Close()
	names, err := iofs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("partials: %w", err)
	}
	var all []Partial
	for _, n := range names {
		if len(n.Name()) != len(partialPrefix)+2*len(ID{}) || n.Name()[:len(partialPrefix)] != partialPrefix || !n.IsDir() {
			continue
		}
		id, err := ParseID(n.Name()[len(partialPrefix):])
		if err != nil {
			continue
		}
		p := Partial{ID: id}
		if f, err := root.Open(n.Name() + "/" + journalName); err == nil {
			// Not held while reading: a transfer that starts now would find it busy.
			p.Busy = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
			unix.Flock(int(f.Fd()), unix.LOCK_UN)
			if b, _, _, err := readJournal(f); err == nil {
				p.From, p.Started, p.Files, p.Bytes = b.header.from, b.header.started, b.header.files, b.header.bytes
				p.Placed = b.placed
			}
			f.Close()
		} else if errors.Is(err, iofs.ErrPermission) {
			continue
		}
		all = append(all, p)
	}
	return all, nil
}

// Discard removes the partial folder of one transfer, so that it cannot
// resume. ErrBusy: it runs now. One that is not there is iofs.ErrNotExist.
func Discard(dir string, id ID) error {
	s, err := openDest(dir, id)
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	defer s.close()
	if err := s.adopt(); err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	if s.part < 0 {
		return fmt.Errorf("discard: %s: %w", s.name, iofs.ErrNotExist)
	}
	if err := s.remove(); err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	return nil
}
