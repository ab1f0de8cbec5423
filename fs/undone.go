package fs

import (
	"context"
	"maps"
)

// reversals tell which changes that come newest first were undone, and which
// undos redone. Either was done within a path, and holds for what it touched.
type reversals struct {
	// by holds, of a change or an undo by its id, what took it back.
	by map[uint64][]*doneChange
	// whole has what took back something of a change stand for all of it. So it
	// is within one file, where the undo of a save may leave the old inode the
	// name of a backup, too.
	whole bool
}

// rest returns what is left of a change after what took parts of it back, c
// itself if nothing did, and takes note of what c takes back.
func (r reversals) rest(c *doneChange) *doneChange {
	if by := r.by[c.id]; len(by) > 0 {
		left := *c
		left.names, left.inodes = maps.Clone(c.names), maps.Clone(c.inodes)
		if r.whole {
			left.names, left.inodes = nil, nil
		}
		for _, b := range by {
			maps.DeleteFunc(left.names, func(at nameOf, _ touch) bool { _, ok := b.names[at]; return ok })
			maps.DeleteFunc(left.inodes, func(ino Ino, _ touch) bool { _, ok := b.inodes[ino]; return ok })
		}
		delete(r.by, c.id)
		c = &left
	}
	if (c.reason == ReasonUndo || c.reason == ReasonRedo) && len(c.names)+len(c.inodes) > 0 {
		r.by[c.undoes] = append(r.by[c.undoes], c)
	}
	return c
}

// within leaves of a change what another touched, too.
func (c *doneChange) within(b *doneChange) {
	maps.DeleteFunc(c.names, func(at nameOf, _ touch) bool { _, ok := b.names[at]; return !ok })
	maps.DeleteFunc(c.inodes, func(ino Ino, _ touch) bool { _, ok := b.inodes[ino]; return !ok })
}

// reversalsIn returns the empty reversals of what is done within a path, which
// leads or led to scope.
func (d *Drive) reversalsIn(ctx context.Context, scope Ino, path string) (reversals, error) {
	r := reversals{by: map[uint64][]*doneChange{}}
	if scope == RootIno {
		return r, nil
	}
	seen, err := d.seenIn(ctx, d.kept(), scope, path)
	if err != nil {
		return r, err
	}
	n, err := seen.v.inode(scope)
	r.whole = err == nil && !n.isDir()
	return r, err
}
