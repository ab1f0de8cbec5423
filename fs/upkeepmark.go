package fs

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
)

// marker collects the blocks of the own log that kept versions refer to.
//
// Versions share most of their pages, so each page is gone through once: seen
// says for which classes a page, with all below it, is done. What a version's
// root buffer replaces does not count for that version, but may for others that
// share the page; such a page is not done, and is gone through again for each.
type marker struct {
	u     *Upkeep
	live  *roaring64.Bitmap
	seen  []*roaring64.Bitmap // by class; of pages, see pageNumber
	stack []markFrame
	pages int64
	tick  func()
}

// markFrame is a page on the way down to the present one.
type markFrame struct {
	ref    log.Ref
	height uint8
	mask   Classes
	done   bool // nothing below has to be looked at again
}

func (u *Upkeep) newMarker(tick func()) *marker {
	m := &marker{u: u, live: roaring64.New(), tick: tick}
	for range u.classes.policies {
		m.seen = append(m.seen, roaring64.New())
	}
	return m
}

// pageNumber is a page in a bitmap of pages of all writers.
func pageNumber(r log.Ref) uint64 { return uint64(r.Writer)<<48 | r.Index }

// markAll marks what the versions that are kept refer to, and those of them
// that the sweep found.
func (m *marker) markAll(ctx context.Context) error {
	// From the newest root to the oldest, so that what is gone is judged by
	// where it was last; but versions over one root from the oldest on, as
	// later ones replace the more of it.
	all := m.u.all
	for end := len(all); end > 0; {
		var group []*commit
		var masks []Classes
		i := end - 1
		for ; i >= 0; i-- {
			v := all[i]
			if v.keep == 0 {
				continue
			}
			c, err := m.u.commitOf(v)
			if err != nil {
				return err
			}
			if len(group) > 0 && c.root != group[0].root {
				break
			}
			m.block(log.Ref{Writer: m.u.d.writer, Index: v.index})
			group, masks = append(group, c), append(masks, v.keep)
		}
		end = i + 1
		if err := m.group(ctx, group, masks); err != nil {
			return err
		}
	}
	return nil
}

// group marks versions that have one root, given newest first.
func (m *marker) group(ctx context.Context, cs []*commit, masks []Classes) error {
	var walked []string // what the version replaced whose pages were gone through last
	var done Classes
	for i, c := range slices.Backward(cs) {
		for _, index := range c.more {
			m.block(log.Ref{Writer: m.u.d.writer, Index: index})
		}
		state := m.u.viewOf(c)
		var over []string
		for _, ch := range c.buffer {
			if kind := keyKind(ch.Key); kind != kindExtent && kind != kindXattr {
				continue
			}
			over = append(over, string(ch.Key))
			if !ch.Delete {
				if err := m.record(ch.Key, ch.Value, masks[i], state); err != nil {
					return fmt.Errorf("version %d: %w", c.seq, err)
				}
			}
		}
		if done&masks[i] == masks[i] && containsAll(over, walked) {
			continue // it sees no more of the pages than the one before
		}
		if err := m.walk(ctx, state, masks[i], over); err != nil {
			return fmt.Errorf("version %d: %w", c.seq, err)
		}
		if done == masks[i] || done == 0 {
			walked, done = over, masks[i]
		}
	}
	return ctx.Err()
}

// containsAll reports whether all strings of few are in all; both are sorted.
func containsAll(all, few []string) bool {
	i := 0
	for _, f := range few {
		for i < len(all) && all[i] < f {
			i++
		}
		if i == len(all) || all[i] != f {
			return false
		}
	}
	return true
}

// walk marks the pages of a version, and what they refer to.
func (m *marker) walk(ctx context.Context, state *view, mask Classes, over []string) error {
	m.stack = m.stack[:0]
	err := state.tree.Walk(ctx, func(ref log.Ref, height uint8) (bool, error) {
		for len(m.stack) > 0 && m.stack[len(m.stack)-1].height <= height {
			m.pop()
		}
		m.block(ref)
		mask := m.unseen(ref, mask)
		if mask == 0 {
			return false, nil
		}
		m.stack = append(m.stack, markFrame{ref, height, mask, true})
		m.pages++
		if m.tick != nil && m.pages%64 == 0 {
			m.tick()
		}
		if height > 1 {
			return true, nil
		}
		top := &m.stack[len(m.stack)-1]
		return false, state.tree.Leaf(ref, func(key, value []byte) error {
			if !validKey(key) {
				return &tree.DamageError{Ref: ref, Reason: "a key that is none of a drive's"}
			}
			if kind := keyKind(key); kind != kindExtent && kind != kindXattr {
				return nil
			}
			if _, found := slices.BinarySearch(over, string(key)); found {
				top.done = false
				return nil
			}
			return m.record(key, value, mask, state)
		})
	})
	if err != nil {
		return err
	}
	for len(m.stack) > 0 {
		m.pop()
	}
	return nil
}

// unseen returns of which classes a page is still to be gone through.
func (m *marker) unseen(ref log.Ref, mask Classes) Classes {
	for i, set := range m.seen {
		if mask&(1<<i) != 0 && set.Contains(pageNumber(ref)) {
			mask &^= 1 << i
		}
	}
	return mask & (1<<len(m.seen) - 1)
}

// pop leaves a page.
func (m *marker) pop() {
	last := len(m.stack) - 1
	f := m.stack[last]
	m.stack = m.stack[:last]
	if !f.done {
		if last > 0 {
			m.stack[last-1].done = false
		}
		return
	}
	for i, set := range m.seen {
		if f.mask&(1<<i) != 0 {
			set.Add(pageNumber(f.ref))
		}
	}
}

func (m *marker) block(ref log.Ref) {
	if ref.Writer == m.u.d.writer {
		m.live.Add(ref.Index)
	}
}

// record marks the block that an extent or attribute of a class in mask is in.
func (m *marker) record(key, value []byte, mask Classes, state *view) error {
	ref, ok, err := blockOf(key, value)
	if err != nil || !ok || ref.Writer != m.u.d.writer || m.live.Contains(ref.Index) {
		return err
	}
	c, err := m.u.classes.of(keyIno(key), state)
	if err == nil && c&mask != 0 {
		m.live.Add(ref.Index)
	}
	return err
}

// blockOf returns the data block that a record refers to, if it does.
func blockOf(key, value []byte) (ref log.Ref, ok bool, err error) {
	switch keyKind(key) {
	case kindExtent:
		e, err := decodeExtent(uint64(keyOffset(key)), value)
		return e.ref, err == nil, err
	case kindXattr:
		x, err := decodeXattr(value)
		return x.ref, err == nil && x.block, err
	}
	return log.Ref{}, false, nil
}
