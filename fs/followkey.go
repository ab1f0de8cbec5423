package fs

import (
	"errors"
	"fmt"

	"hearth/log"
	"hearth/log/seal"
)

// newestCommit reads the newest version of the drive's log. Of a followed drive
// whose newest version this device has no key for, because its access was
// ended or the key has not come yet, it is the newest one here that it can read.
func (d *Drive) newestCommit(size uint64) (version, error) {
	c, err := d.readCommit(log.Ref{Writer: d.writer, Index: size - 1})
	if err == nil {
		return version{c, size - 1}, nil
	}
	if d.followed && errors.Is(err, seal.ErrNoKey) {
		// What was shown is here: nothing is fetched for this.
		for index := size - 1; index > 0; index-- {
			if v, ok := d.localCommit(index - 1); ok {
				d.logger.Warn("an older version is shown: there is no key for the newest", "drive", d.store.ID(), "version", v.seq)
				return v, nil
			}
		}
	}
	return version{}, fmt.Errorf("newest version of drive %s: %w", d.store.ID(), err)
}

// localCommit reads an entry that may be a commit and be here.
func (d *Drive) localCommit(index uint64) (version, bool) {
	if !d.own.Holds(index) || d.own.IsControl(index) {
		return version{}, false
	}
	b, err := d.store.ReadLocal(nil, log.Ref{Writer: d.writer, Index: index}, seal.Commit)
	if err != nil {
		return version{}, false
	}
	c, err := decodeCommit(b) // a block of further changes is of this kind, too
	return version{c, index}, err == nil && c.parent <= index && c.root.Ref.Index < index
}
