package fs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
)

// sharing is about data blocks that hold contents of the purged and of others:
// where those of the others go.
type sharing struct {
	d     *Drive
	keys  map[string]struct{}    // extents of others in such blocks
	moved map[uint64]*relocation // by block
}

// relocation says where parts of a block are now.
type relocation struct {
	parts []stretch // sorted, not touching each other
	at    []uint32  // where each begins in the new block
	index uint64    // of the new block
}

// stretch is a range of bytes of a block.
type stretch struct{ lo, hi uint32 }

// survey goes through all pages of all versions, once for what the purged have
// there, and once for who shares blocks with them.
func (p *purger) survey(ctx context.Context) error {
	p.share = sharing{d: p.d, keys: map[string]struct{}{}, moved: map[uint64]*relocation{}}
	p.clean = roaring64.New()
	names := map[string]struct{}{}
	own := map[uint64][]stretch{} // of the purged, by block
	note := func(into map[uint64][]stretch, key, value []byte) (uint64, error) {
		e, err := decodeExtent(uint64(keyOffset(key)), value)
		if err == nil && e.ref.Writer == p.d.writer {
			into[e.ref.Index] = addStretch(into[e.ref.Index], stretch{e.skip, e.skip + uint32(e.length)})
		}
		return e.ref.Index, err
	}
	all := p.u.all
	err := p.records(ctx, all, roaring64.New(), func(key, value []byte) error {
		gone := p.isGone(keyIno(key))
		switch keyKind(key) {
		case kindExtent:
			if gone && value != nil {
				_, err := note(own, key, value)
				return err
			}
		case kindXattr:
			if gone {
				names[string(key)] = struct{}{}
			}
		case kindParent:
			if up, _ := keyParent(key); gone || p.isGone(up) {
				names[string(key)] = struct{}{}
				names[string(direntKey(up, string(key[keyPrefix+8:])))] = struct{}{}
			}
		case kindDirent:
			if gone {
				names[string(key)] = struct{}{}
			} else if value != nil {
				e, err := decodeDirent(value)
				if err != nil {
					return err
				}
				if p.isGone(e.ino) {
					names[string(key)] = struct{}{}
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(names)) {
		p.keys = append(p.keys, []byte(k))
	}
	others := map[uint64][]stretch{}
	users := map[uint64]Ino{}
	p.seen = roaring64.New()
	err = p.records(ctx, all, p.seen, func(key, value []byte) error {
		if value == nil || keyKind(key) != kindExtent || p.isGone(keyIno(key)) {
			return nil
		}
		e, err := decodeExtent(uint64(keyOffset(key)), value)
		if err != nil || e.ref.Writer != p.d.writer || own[e.ref.Index] == nil {
			return err
		}
		p.share.keys[string(key)] = struct{}{}
		users[e.ref.Index] = keyIno(key)
		_, err = note(others, key, value)
		return err
	})
	if err != nil {
		return err
	}
	for index, parts := range others {
		if covers(parts, own[index]) {
			if path, err := p.d.Path(ctx, users[index]); err == nil {
				p.leave("%s holds the same contents", path)
			} else {
				p.leave("an older version of another file holds the same contents")
			}
			continue
		}
		if err := p.share.move(index, parts); err != nil {
			return err
		}
	}
	p.surveyed = len(all)
	return nil
}

// surveyOthers looks for extents that move in a version that was made since
// the survey.
func (p *purger) surveyOthers(ctx context.Context, i int) error {
	if i < p.surveyed || len(p.share.moved) == 0 {
		return nil
	}
	return p.records(ctx, p.u.all[i:i+1], p.seen, func(key, value []byte) error {
		if value == nil || keyKind(key) != kindExtent {
			return nil
		}
		e, err := decodeExtent(uint64(keyOffset(key)), value)
		if _, ok := p.share.relocate(e); err == nil && ok {
			p.share.keys[string(key)] = struct{}{}
		}
		return err
	})
}

// records calls fn for every record in the pages and root buffers of versions,
// but for pages seen before; value is nil where a buffer deletes it.
func (p *purger) records(ctx context.Context, versions []*kept, seen *roaring64.Bitmap, fn func(key, value []byte) error) error {
	for _, v := range versions {
		c, err := p.u.commitOf(v)
		if err != nil {
			return err
		}
		for _, ch := range c.buffer {
			value := ch.Value
			if ch.Delete {
				value = nil
			}
			if err := fn(ch.Key, value); err != nil {
				return fmt.Errorf("version %d: %w", v.seq, err)
			}
		}
		t := tree.New(&p.d.pages, p.u.cache, c.root)
		err = t.Walk(ctx, func(ref log.Ref, height uint8) (bool, error) {
			if !seen.CheckedAdd(pageNumber(ref)) {
				return false, nil
			}
			if height > 1 {
				return true, nil
			}
			return false, t.Leaf(ref, func(key, value []byte) error {
				if !validKey(key) {
					return &tree.DamageError{Ref: ref, Reason: "a key that is none of a drive's"}
				}
				return fn(key, value)
			})
		})
		if err != nil {
			return fmt.Errorf("version %d: %w", v.seq, err)
		}
	}
	return nil
}

// addStretch adds a range to sorted ranges that do not touch.
func addStretch(all []stretch, s stretch) []stretch {
	out := all[:0:0]
	for _, x := range all {
		if x.hi < s.lo || x.lo > s.hi {
			out = append(out, x)
			continue
		}
		s.lo, s.hi = min(s.lo, x.lo), max(s.hi, x.hi)
	}
	out = append(out, s)
	slices.SortFunc(out, func(a, b stretch) int { return cmp.Compare(a.lo, b.lo) })
	return out
}

// covers reports whether parts hold all bytes of few.
func covers(parts, few []stretch) bool {
	for _, f := range few {
		if !slices.ContainsFunc(parts, func(x stretch) bool { return x.lo <= f.lo && x.hi >= f.hi }) {
			return false
		}
	}
	return true
}

// move writes parts of a block to a new one. A block that is not kept has
// nothing to be moved.
func (s *sharing) move(index uint64, parts []stretch) error {
	if !s.d.own.Present(index) {
		return nil
	}
	plain, err := s.d.store.ReadBlock(nil, log.Ref{Writer: s.d.writer, Index: index}, seal.Data)
	if err != nil {
		return err
	}
	r := &relocation{parts: parts}
	var out []byte
	for _, x := range parts {
		if int(x.hi) > len(plain) {
			return fmt.Errorf("block %d has %d bytes, an extent ends at %d: %w", index, len(plain), x.hi, ErrDamaged)
		}
		r.at = append(r.at, uint32(len(out)))
		out = append(out, plain[x.lo:x.hi]...)
	}
	stored, err := s.d.store.Keys().Seal(nil, seal.Data, out)
	if err != nil {
		return err
	}
	// With what is kept back for deleting: on a full disk purging makes room.
	if r.index, err = s.d.own.AppendMeta(stored); err != nil {
		return noSpace(err)
	}
	s.moved[index] = r
	return nil
}

// relocate returns an extent as it is now, and whether that is elsewhere.
func (s *sharing) relocate(e extent) (extent, bool) {
	if e.ref.Writer != s.d.writer {
		return e, false
	}
	r := s.moved[e.ref.Index]
	if r == nil {
		return e, false
	}
	for i, x := range r.parts {
		if x.lo <= e.skip && uint64(e.skip)+e.length <= uint64(x.hi) {
			e.ref.Index, e.skip = r.index, r.at[i]+e.skip-x.lo
			return e, true
		}
	}
	return e, false
}

// relocateState adds to changes what moves in a state, but for what goes.
func (s *sharing) relocateState(v *view, changes map[string][]byte) error {
	if len(s.moved) == 0 {
		return nil
	}
	for k := range s.keys {
		if _, ok := changes[k]; ok {
			continue
		}
		b, err := v.get([]byte(k))
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		e, err := decodeExtent(uint64(keyOffset([]byte(k))), b)
		if err != nil {
			return err
		}
		if e, ok := s.relocate(e); ok {
			changes[k] = e.encode()
		}
	}
	return nil
}

// relocateLayer has a layer's extents be where they are now. Under mu.
func (s *sharing) relocateLayer(l *layer) error {
	type put struct{ key, value []byte }
	var puts []put
	var err error
	l.m.Scan(func(k string, b []byte) bool {
		if b == nil || keyKind([]byte(k)) != kindExtent {
			return true
		}
		var e extent
		if e, err = decodeExtent(uint64(keyOffset([]byte(k))), b); err != nil {
			return false
		}
		if e, ok := s.relocate(e); ok && !bytes.Equal(b, e.encode()) {
			puts = append(puts, put{[]byte(k), e.encode()})
		}
		return true
	})
	for _, x := range puts {
		l.put(x.key, x.value)
	}
	return err
}
