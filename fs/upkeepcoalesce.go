package fs

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"hearth/log"
	"hearth/log/seal"
)

// Coalescing: a file that was written in many small pieces, such as a database,
// is read from as many blocks. Once nobody changes it any more, stretches of
// small extents are written again as one block each. No contents, times or
// sequence numbers change, so no history shows it; versions before it go on to
// refer to the small blocks.

// CoalesceOptions say what is coalesced.
type CoalesceOptions struct {
	// Idle is how long a file was not written; 0 means an hour.
	Idle time.Duration
	// Limit is how many bytes are written again at most; 0 means 64 MiB.
	Limit int64
}

const (
	coalesceBlock = 64 << 10 // what becomes one block
	coalesceSmall = 16 << 10 // extents from here on stay as they are
	coalesceLeast = 8        // as many make it worth while
	coalesceBatch = 64       // blocks placed by one commit
)

// Coalesce writes fragmented files again, and returns how many bytes of them.
// It is for times when the drive is idle.
func (d *Drive) Coalesce(ctx context.Context, o CoalesceOptions) (int64, error) {
	release, err := d.exclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	if o.Limit == 0 {
		o.Limit = 64 << 20
	}
	c := &coalescing{d: d, before: d.clock().Add(-o.Idle), left: o.Limit}
	if err := c.all(ctx); err != nil {
		return c.done, fmt.Errorf("coalescing in drive %s: %w", d.store.ID(), err)
	}
	return c.done, nil
}

// coalescing is one run of Coalesce.
type coalescing struct {
	d      *Drive
	before time.Time
	left   int64
	done   int64

	ino   Ino
	idle  bool     // ino was not written since before
	run   []extent // small ones that touch each other
	size  uint64
	batch []coalesced
}

// coalesced is a stretch of a file that stands in one block now.
type coalesced struct {
	ino Ino
	old []extent
	new extent
}

// all goes through the files of the newest version.
func (c *coalescing) all(ctx context.Context) error {
	state := c.d.snapshotOf(c.d.newest()).v
	it := state.scan(appendKey(nil, 1, 0), nil)
	for c.left > 0 && it.next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch keyKind(it.key) {
		case kindInode:
			if err := c.end(); err != nil {
				return err
			}
			n, err := decodeInode(it.value)
			if err != nil {
				return err
			}
			c.ino = keyIno(it.key)
			c.idle = n.isRegular() && n.mtime.Std().Before(c.before) && n.ctime.Std().Before(c.before)
		case kindExtent:
			if !c.idle {
				continue
			}
			e, err := decodeExtent(uint64(keyOffset(it.key)), it.value)
			if err != nil {
				return err
			}
			if err := c.extent(e); err != nil {
				return err
			}
		}
	}
	if it.err != nil {
		return it.err
	}
	if err := c.end(); err != nil {
		return err
	}
	return c.place()
}

// extent goes on to the next extent of a file.
func (c *coalescing) extent(e extent) error {
	if e.length >= coalesceSmall {
		return c.end()
	}
	if n := len(c.run); n > 0 && (c.run[n-1].end() != e.off || c.size+e.length > coalesceBlock) {
		if err := c.end(); err != nil {
			return err
		}
	}
	c.run = append(c.run, e)
	c.size += e.length
	return nil
}

// end writes a stretch again if that is worth while.
func (c *coalescing) end() error {
	run, size := c.run, c.size
	c.run, c.size = nil, 0
	if len(run) < coalesceLeast {
		return nil
	}
	for _, e := range run {
		if !c.d.present(e.ref) {
			return nil // damage, or its blocks are elsewhere: not ours to judge
		}
	}
	p := make([]byte, size)
	if err := c.d.readExtents(run, p, run[0].off); err != nil {
		return fmt.Errorf("inode %d: %w", c.ino, err)
	}
	index, err := c.d.appendBlock(seal.Data, p)
	if err != nil {
		return noSpace(err)
	}
	c.batch = append(c.batch, coalesced{c.ino, run, extent{off: run[0].off, ref: log.Ref{Writer: c.d.writer, Index: index}, length: size}})
	c.left -= int64(size)
	if len(c.batch) == coalesceBatch {
		return c.place()
	}
	return nil
}

// present reports whether the bytes of a block are here: the log of another
// writer may not be.
func (d *Drive) present(ref log.Ref) bool {
	l, err := d.store.Log(ref.Writer)
	return err == nil && l.Present(ref.Index)
}

// place puts the new extents in the place of the old ones, where these still
// stand.
func (c *coalescing) place() error {
	if len(c.batch) == 0 {
		return nil
	}
	var done int64
	err := c.d.commitUpkeep(true, func() error {
		v := c.d.live()
		for _, x := range c.batch {
			stands := true
			for _, e := range x.old {
				b, err := v.get(extentKey(x.ino, e.off))
				if err != nil {
					return err
				}
				stands = stands && bytes.Equal(b, e.encode())
			}
			if !stands {
				continue
			}
			for _, e := range x.old {
				c.d.open.del(extentKey(x.ino, e.off))
			}
			c.d.open.put(extentKey(x.ino, x.new.off), x.new.encode())
			done += int64(x.new.length)
		}
		return nil
	})
	c.batch = nil
	if err == nil {
		c.done += done
	}
	return err
}
