package fs

import "context"

// Until changes.go, diff.go and versions.go land; each definition here goes
// when its own file has it.

type Change struct{ ID uint64 }

type DiffEntry struct{ Op, Path, OldPath string }

type DeletedEntry struct{ Name string }

func (c *doneChange) describe() Change { return Change{ID: c.id} }

func (d *Drive) foresee(now *Snapshot, p *patch) ([]DiffEntry, error) { return nil, nil }

func diffEntries(ctx context.Context, a, b *view, scope Ino, fn func(DiffEntry) error) error {
	return nil
}

func (d *Drive) deletedInode(ctx context.Context, now *Snapshot, path string) (Ino, error) {
	return 0, ErrNotExist
}

func (d *Drive) FindDeleted(ctx context.Context, path string) (Version, Ino, error) {
	return Version{}, 0, ErrNotExist
}

func (d *Drive) Deleted(ctx context.Context, dir Ino, limit int, fn func(DeletedEntry) bool) error {
	return nil
}
