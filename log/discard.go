package log

import (
	"errors"
	"fmt"
	"path/filepath"

	"hearth/log/disk"
)

// SetAside gives the directory of a store that nobody has open another name in
// the same folder, durably: from then on there is no such store, and what is in
// aside is to be removed with [Discard]. A crash leaves the store under one of
// the two names, whole. After an error it is where it was, unless the error says
// that it could not be brought back.
func SetAside(d disk.FS, dir, aside string) error {
	if err := d.Rename(dir, aside); err != nil {
		return err
	}
	if err := d.SyncDir(filepath.Dir(dir)); err != nil {
		if back := d.Rename(aside, dir); back != nil {
			err = errors.Join(err, fmt.Errorf("bringing it back: %w", back))
		}
		return err
	}
	return nil
}

// Discard removes what was set aside, also what a crash has left of it.
func Discard(d disk.FS, aside string) error {
	// Who died before the other name was durable must not lose a part of what
	// may come back under the first one.
	if err := d.SyncDir(filepath.Dir(aside)); err != nil {
		return err
	}
	return d.RemoveAll(aside)
}
