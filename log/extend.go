package log

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// What lets a hash tree be had in parts: its right edge, which is enough to
// know its root, comes with a head; full tiles come one by one, each verified
// against the row above.

// maxLeaves bounds how many leaves a [HeadProof] has: a reader that follows
// gets them all, and with them the tiles they complete.
const maxLeaves = 1024

// HeadProof lets whoever knows a log's tree of Old entries verify a newer head
// and go on from it. Either it has the leaf hashes of all entries since, or
// the right edge of the newer tree and, if Old is not 0, a consistency proof;
// with a base it has all of them.
type HeadProof struct {
	Note   []byte // the signed checkpoint
	Old    uint64
	Leaves []byte // hashes of the leaves from Old on, 32 bytes each
	// Edges has, for each tile level of the newer tree, the hashes of the
	// partial tile at its end, which may be none.
	Edges       [][]byte
	Consistency []tlog.Hash
	// Base is the root of the newer tree's first Old entries, or nothing: see
	// [Log.AddBase].
	Base []byte
}

// ProveHead proves the newest durable head to somebody who knows the tree of
// the first old entries, or nothing (0).
func (l *Log) ProveHead(old uint64) (HeadProof, error) {
	head := l.Head()
	p := HeadProof{Note: head.Note, Old: old}
	switch {
	case head.Size == 0:
		return p, fmt.Errorf("%s has no head: %w", l.dir, ErrAbsent)
	case old > head.Size:
		return p, fmt.Errorf("proving %d entries of %s to one who knows %d: %w", head.Size, l.dir, old, ErrAbsent)
	}
	var err error
	if old > 0 && old < head.Size && head.Size-old <= maxLeaves {
		p.Leaves, err = l.tree.leaves(old, head.Size)
		if err == nil || !errors.Is(err, ErrAbsent) {
			return p, err
		}
	}
	if p.Consistency, err = l.tree.proveConsistency(old, head.Size); err != nil {
		return p, err
	}
	p.Edges, err = l.tree.edges(head.Size)
	return p, err
}

// leaves returns the leaf hashes of [from, to).
func (t *hashTree) leaves(from, to uint64) ([]byte, error) {
	out := make([]byte, 0, (to-from)*hashSize)
	for from < to {
		n, start := from/tileWidth, from%tileWidth
		end := min(to-n*tileWidth, tileWidth)
		tile, err := t.tile(0, n, int(end))
		if err != nil {
			return nil, err
		}
		out = append(out, tile[start*hashSize:]...)
		from = n*tileWidth + end
	}
	return out, nil
}

// edges returns the partial tiles at the end of each row of the tree of the
// first size leaves.
func (t *hashTree) edges(size uint64) ([][]byte, error) {
	var out [][]byte
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		count := size >> (tileHeight * level)
		var edge []byte
		if width := int(count % tileWidth); width > 0 {
			var err error
			if edge, err = t.tile(level, count/tileWidth, width); err != nil {
				return nil, err
			}
		}
		out = append(out, edge)
	}
	return out, nil
}

// shadow returns a tree without files that can be appended to, or whose edge
// can be replaced, to learn what the root would be.
func (t *hashTree) shadow() *hashTree {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := &hashTree{n: t.n, peaks: t.peaks}
	for _, r := range t.rows {
		s.rows = append(s.rows, &hashRow{base: r.base, mem: bytes.Clone(r.mem), flushed: r.flushed})
	}
	return s
}

// edgeTree returns the tree of size leaves of which only the edge is known.
func edgeTree(size uint64, edges [][]byte) (*hashTree, error) {
	s := &hashTree{n: size}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		count := size >> (tileHeight * level)
		base := count &^ (tileWidth - 1)
		if level >= len(edges) || uint64(len(edges[level])) != (count-base)*hashSize {
			return nil, fmt.Errorf("%w: the edge of level %d is not that of %d entries", ErrProof, level, size)
		}
		s.rows = append(s.rows, &hashRow{base: base, mem: bytes.Clone(edges[level]), flushed: base})
	}
	if len(edges) != len(s.rows) {
		return nil, fmt.Errorf("%w: %d edges for %d entries", ErrProof, len(edges), size)
	}
	s.setPeaks()
	return s, nil
}

// become takes over the edge of a shadow, which has at least as many leaves.
// What was in memory and lies before the new edge is written to the files
// first.
func (t *hashTree) become(s *hashTree) error {
	if err := t.flush(); err != nil {
		return err
	}
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	// A new slice: those who flush or sync hold the old one without the lock.
	rows := slices.Clone(t.rows)
	for level, from := range s.rows {
		if level == len(rows) {
			rows = append(rows, &hashRow{})
		}
		old := rows[level]
		rows[level] = &hashRow{file: old.file, dirty: old.dirty, base: from.base, mem: from.mem, flushed: min(from.flushed, from.count())}
	}
	t.rows, t.n, t.peaks = rows, s.n, s.peaks
	t.cacheMu.Lock()
	t.cache = nil
	t.cacheMu.Unlock()
	return nil
}

// addTile takes in full tile n of a level. The error matches ErrProof if it is
// not the tree's, and ErrAbsent if that cannot be told: the tile above is lacking,
// or the tree has not got so far, though that of whoever sent it may have.
func (t *hashTree) addTile(level int, n uint64, data []byte) error {
	if len(data) != tileBytes {
		return fmt.Errorf("%w: a tile of %d bytes", ErrProof, len(data))
	}
	t.mu.RLock()
	inside := level >= 0 && level < len(t.rows) && n < t.rows[level].base/tileWidth
	t.mu.RUnlock()
	if !inside {
		return fmt.Errorf("full hash tile %d/%d is not in the tree in %s: %w", level, n, t.dir, ErrAbsent)
	}
	above, err := t.verifiedTile(level+1, n/tileWidth)
	if err != nil {
		return err
	}
	if h := subtreeHash(data); !bytes.Equal(h[:], above[n%tileWidth*hashSize:][:hashSize]) {
		return fmt.Errorf("%w: hash tile %d/%d", ErrProof, level, n)
	}
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	if t.closed {
		return fmt.Errorf("adding to the hash tree in %s: %w", t.dir, ErrClosed)
	}
	t.mu.RLock()
	r := t.rows[level]
	file := r.file
	t.mu.RUnlock()
	if file == nil {
		if file, err = t.createRow(level); err != nil {
			return err
		}
		t.mu.Lock()
		r.file = file
		t.mu.Unlock()
	}
	r.dirty = true
	if _, err := file.WriteAt(data, int64(n)*tileBytes); err != nil {
		return fmt.Errorf("%s: %w", t.fileName(level), err)
	}
	t.remember(level, n, bytes.Clone(data))
	return nil
}

// TileRef names a full hash tile: see [TilePath].
type TileRef struct {
	Level int
	N     uint64
}

// lacking appends the tiles that are needed to verify an entry and are not
// here, the highest level first.
func (t *hashTree) lacking(dst []TileRef, index uint64) ([]TileRef, error) {
	first := len(dst)
	for level := 0; ; level++ {
		n := index >> (tileHeight * (level + 1))
		_, err := t.verifiedTile(level, n)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrAbsent) {
			return dst, err
		}
		dst = append(dst, TileRef{level, n})
	}
	slices.Reverse(dst[first:])
	return dst, nil
}
