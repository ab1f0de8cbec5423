package log

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// tile returns the first width hashes of tile n of a level, which is the
// content of the C2SP tile of that width. They are verified.
func (t *hashTree) tile(level int, n uint64, width int) ([]byte, error) {
	if level < 0 || width < 1 || width > tileWidth || n > math.MaxUint64/tileWidth {
		return nil, fmt.Errorf("no hash tile %d/%d of width %d", level, n, width)
	}
	data, err := t.verifiedTile(level, n)
	if err != nil {
		return nil, err
	}
	if len(data) < width*hashSize {
		return nil, fmt.Errorf("hash tile %d/%d has %d hashes, not %d", level, n, len(data)/hashSize, width)
	}
	return bytes.Clone(data[:width*hashSize]), nil
}

// ReadHashes implements tlog.HashReader. The hashes are verified.
func (t *hashTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	size := t.size()
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 {
			return nil, fmt.Errorf("no stored hash %d", x)
		}
		level, n := tlog.SplitStoredHashIndex(x)
		if level >= 63 || uint64(n) >= size>>level {
			return nil, fmt.Errorf("hash %d of level %d is not in a tree of %d leaves", n, level, size)
		}
		// The subtree lies within one tile: 2^low hashes from start.
		low := level % tileHeight
		start := uint64(n) << low
		data, err := t.verifiedTile(level/tileHeight, start/tileWidth)
		if err != nil {
			return nil, err
		}
		hashes[i] = subtreeHash(data[start%tileWidth*hashSize:][:hashSize<<low])
	}
	return hashes, nil
}

// verifiedTile returns the hashes of tile n of a level, as many as there are.
// The caller must not change them.
func (t *hashTree) verifiedTile(level int, n uint64) ([]byte, error) {
	if data := t.cached(level, n); data != nil {
		return data, nil
	}
	data, trusted, err := t.loadTile(level, n)
	if err != nil || trusted {
		return data, err
	}
	// A tile that is not in memory is full, so its hash is in the row above.
	above, err := t.verifiedTile(level+1, n/tileWidth)
	if err != nil {
		return nil, err
	}
	if h := subtreeHash(data); !bytes.Equal(h[:], above[n%tileWidth*hashSize:][:hashSize]) {
		if t.sparse {
			return nil, fmt.Errorf("hash tile %d/%d in %s: %w", level, n, t.dir, ErrAbsent)
		}
		return nil, fmt.Errorf("%w: hash tile %d/%d in %s", ErrDamaged, level, n, t.fileName(level))
	}
	t.remember(level, n, data)
	return data, nil
}

// loadTile returns a copy of a tile. One that was in memory is trusted; one
// from a file is full.
func (t *hashTree) loadTile(level int, n uint64) (data []byte, trusted bool, err error) {
	t.mu.RLock()
	if level >= len(t.rows) || n*tileWidth >= t.rows[level].count() {
		size := t.n
		t.mu.RUnlock()
		return nil, false, fmt.Errorf("hash tile %d/%d is not in a tree of %d leaves", level, n, size)
	}
	r := t.rows[level]
	if start := n * tileWidth; start >= r.base {
		mem := r.mem[(start-r.base)*hashSize:]
		data = bytes.Clone(mem[:min(len(mem), tileBytes)])
		t.mu.RUnlock()
		return data, true, nil
	}
	file, closed := r.file, t.closed
	t.mu.RUnlock()
	if file == nil && (closed || !t.sparse) {
		return nil, false, fmt.Errorf("reading the hash tree in %s: %w", t.dir, ErrClosed)
	}
	data = make([]byte, tileBytes)
	if file == nil {
		return data, false, nil // zeros are no tile's hashes
	}
	err = readHashFile(file, data, n*tileWidth, t.fileName(level))
	if err != nil && t.sparse {
		clear(data)
		err = nil
	}
	return data, false, err
}

// cachedTiles is how many verified tiles of a level are kept: several ranges
// of a log may be read, or arrive, side by side.
const cachedTiles = 8

func (t *hashTree) cached(level int, n uint64) []byte {
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	if level >= len(t.cache) {
		return nil
	}
	for i := range t.cache[level] {
		if c := &t.cache[level][i]; c.n == n && c.data != nil {
			return c.data
		}
	}
	return nil
}

func (t *hashTree) remember(level int, n uint64, data []byte) {
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	for len(t.cache) <= level {
		t.cache = append(t.cache, [cachedTiles]cachedTile{})
	}
	// The place tells nothing about the age, but neighbours do not meet.
	t.cache[level][n%cachedTiles] = cachedTile{n: n, data: data}
}

// TilePath returns the C2SP tlog-tiles path of a hash tile. (The Path method
// of tlog.Tile prints the older layout of the Go checksum database.) A width
// of 256 is a full tile; a narrower one is partial.
func TilePath(level int, n uint64, width int) string {
	return tilePath(strconv.Itoa(level), n, width)
}

// EntriesPath returns the C2SP tlog-tiles path of an entry bundle.
func EntriesPath(n uint64, width int) string { return tilePath("entries", n, width) }

func tilePath(level string, n uint64, width int) string {
	// The number is written in groups of three digits, all but the last with
	// an x before them.
	name := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		name = fmt.Sprintf("x%03d/%s", n%1000, name)
	}
	if width != tileWidth {
		name += ".p/" + strconv.Itoa(width)
	}
	return "tile/" + level + "/" + name
}

// AppendBundle appends an entry of at most [MaxEntry] bytes to a C2SP entry
// bundle: a 16-bit big-endian length and the entry.
func AppendBundle(bundle, entry []byte) ([]byte, error) {
	if len(entry) > MaxEntry {
		return nil, fmt.Errorf("%w: %d bytes are too many for a bundle", ErrEntry, len(entry))
	}
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...), nil
}

// ParseBundle splits a bundle into its entries, of which there must be width
// (1 to 256). The entries alias the bundle.
func ParseBundle(bundle []byte, width int) ([][]byte, error) {
	if width < 1 || width > tileWidth {
		return nil, fmt.Errorf("%w: a bundle of %d entries", ErrEntry, width)
	}
	entries := make([][]byte, 0, width)
	for range width {
		if len(bundle) < 2 {
			return nil, fmt.Errorf("%w: bundle ends after %d of %d entries", ErrEntry, len(entries), width)
		}
		n := int(binary.BigEndian.Uint16(bundle))
		bundle = bundle[2:]
		if n > len(bundle) {
			return nil, fmt.Errorf("%w: entry %d of the bundle is cut short", ErrEntry, len(entries))
		}
		entries = append(entries, bundle[:n:n])
		bundle = bundle[n:]
	}
	if len(bundle) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last entry of the bundle", ErrEntry, len(bundle))
	}
	return entries, nil
}
