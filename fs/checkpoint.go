package fs

import (
	"context"
	"fmt"
)

// Checkpoint returns the root hash of the log up to a version: the tree whose
// last entry is the version's commit, which names the version and everything
// before it. Whoever reads a version with this root reads the very same drive.
// Of a followed drive it is verified against the newest head. Errors match
// ErrNoVersion and log.ErrMissing.
func (d *Drive) Checkpoint(_ context.Context, v Version) ([32]byte, error) {
	if v.Writer != d.writer {
		return [32]byte{}, fmt.Errorf("version %v: no such writer: %w", v, ErrNoVersion)
	}
	at, err := d.version(v.Seq)
	if err != nil {
		return [32]byte{}, err
	}
	root, err := d.own.FetchRoot(at.index + 1)
	if err != nil {
		return root, fmt.Errorf("checkpoint of version %v: %w", v, err)
	}
	return root, nil
}
