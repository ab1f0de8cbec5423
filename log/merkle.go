package log

import (
	"crypto/sha256"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"strconv"
	"sync"

	"hearth/log/disk"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	hashSize   = 32
	tileHeight = 8               // C2SP tlog-tiles
	tileWidth  = 1 << tileHeight // hashes in a full tile
	tileBytes  = tileWidth * hashSize
	// keepSpare is how much memory a row keeps for its next unflushed hashes
	// after a flush.
	keepSpare = 1 << 20
)

// hashTree is the RFC 6962 Merkle tree of one log. Its hashes are an index:
// they can be computed again from the entries.
//
// Every eighth level of the tree is a row, kept in a file of its own: the
// file hash.L is the concatenation of the C2SP tiles of level L, tile n at
// offset n*8192, so that exporting is slicing. The hashes between the rows
// are computed when they are wanted. In memory are what was not flushed yet
// and the partial tile at the end of each row; that right edge is all that
// appending needs.
//
// What is in memory is trusted: it was computed here or, after openHashTree,
// is confirmed when the caller compares root with a signed checkpoint. A tile
// from a file is used only after its hash was found in the row above, and so
// on up to memory: a rotten file gives an error that matches [ErrDamaged],
// never a wrong hash.
//
// One goroutine at a time may call append or truncate. All other methods may
// run beside append, from any goroutine; truncate needs the tree to itself.
type hashTree struct {
	disk disk.FS
	dir  string
	// sparse: full tiles may be lacking in the files. One that is not what the
	// row above says is taken for that, as it can be had again.
	sparse bool

	// flushMu is held while files are written, opened or closed, and is
	// taken before mu. Appending does not wait for it.
	flushMu sync.Mutex
	newName bool // a file was created since the directory was synced
	closed  bool

	mu   sync.RWMutex // guards what follows
	n    uint64       // leaves
	rows []*hashRow   // by tile level
	// peaks[l] is the root of the complete subtree of 2^l leaves at the
	// right edge, where bit l of n is set.
	peaks [64][hashSize]byte

	cacheMu sync.Mutex
	cache   [][cachedTiles]cachedTile // verified tiles, by level
}

// hashRow is one stored level of the tree. A row's mem holds the hashes from
// number base (a multiple of tileWidth) to the last one.
type hashRow struct {
	file    disk.File // nil until something is flushed
	dirty   bool      // the file was written since it was synced; under flushMu
	base    uint64
	mem     []byte
	flushed uint64 // how many hashes are in the file
}

// count returns the number of hashes in the row.
func (r *hashRow) count() uint64 { return r.base + uint64(len(r.mem)/hashSize) }

// cachedTile is a full tile from a file that was verified.
type cachedTile struct {
	n    uint64
	data []byte // never changed; nil if there is none
}

// newHashTree returns an empty tree that will keep its files in dir,
// replacing those that are there. It does no I/O.
func newHashTree(d disk.FS, dir string) *hashTree {
	return &hashTree{disk: d, dir: dir}
}

// openHashTree returns the tree of the first size leaves that is stored in
// dir. It reads only the right edge, and it cannot know whether that is
// sound: the caller compares root with a signed checkpoint and, if they
// differ or openHashTree failed, builds the tree again.
func openHashTree(d disk.FS, dir string, size uint64, sparse bool) (*hashTree, error) {
	if size > maxTreeSize {
		return nil, fmt.Errorf("opening the hash tree in %s: size %d is too large", dir, size)
	}
	t := newHashTree(d, dir)
	t.sparse = sparse
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		r, err := t.openRow(level, size>>(tileHeight*level))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening the hash tree: %w", err), t.close())
		}
		t.rows = append(t.rows, r)
	}
	t.n = size
	t.setPeaks()
	return t, nil
}

// openRow opens the file of a row that has count hashes and reads its edge.
func (t *hashTree) openRow(level int, count uint64) (*hashRow, error) {
	name := t.fileName(level)
	f, err := t.disk.Open(name)
	if t.sparse && errors.Is(err, iofs.ErrNotExist) && count%tileWidth == 0 {
		return &hashRow{flushed: count, base: count}, nil
	}
	if err != nil {
		return nil, err
	}
	have, err := f.Size()
	if err == nil && uint64(have)/hashSize < count && !(t.sparse && count%tileWidth == 0) {
		err = fmt.Errorf("%w: %s has %d bytes for %d hashes", ErrDamaged, name, have, count)
	}
	r := &hashRow{file: f, flushed: count, base: count &^ (tileWidth - 1)}
	if err == nil {
		r.mem = make([]byte, (count-r.base)*hashSize)
		err = readHashFile(f, r.mem, r.base, name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// setPeaks computes the peaks from the partial tiles at the ends of the rows.
// In the binary digits of a row's length, each one-bit of the last eight is
// a complete subtree inside the partial tile.
func (t *hashTree) setPeaks() {
	for level, r := range t.rows {
		width := int(r.count() % tileWidth)
		edge := r.mem[len(r.mem)-width*hashSize:]
		for j := range tileHeight {
			if width>>j&1 == 1 {
				start := width >> (j + 1) << (j + 1)
				t.peaks[level*tileHeight+j] = subtreeHash(edge[start*hashSize:][:hashSize<<j])
			}
		}
	}
}

// append adds a leaf hash. See [LeafHash].
func (t *hashTree) append(leaf [hashSize]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push(0, &leaf)
	level := 0
	for n := t.n; n&1 == 1; n >>= 1 {
		leaf = nodeHash(&t.peaks[level], &leaf)
		level++
		if level%tileHeight == 0 {
			t.push(level/tileHeight, &leaf)
		}
	}
	t.peaks[level] = leaf
	t.n++
}

// push adds a hash to a row.
func (t *hashTree) push(level int, h *[hashSize]byte) {
	if level == len(t.rows) {
		t.rows = append(t.rows, &hashRow{})
	}
	r := t.rows[level]
	r.mem = append(r.mem, h[:]...)
}

// size returns the number of leaves.
func (t *hashTree) size() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.n
}

// unflushed returns the number of leaves that are in memory only.
func (t *hashTree) unflushed() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.n == 0 {
		return 0
	}
	return t.n - t.rows[0].flushed
}

// root returns the root hash of the whole tree.
func (t *hashTree) root() [hashSize]byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.n == 0 {
		return emptyRoot
	}
	var h [hashSize]byte
	first := true
	for level := range t.peaks {
		switch {
		case t.n>>level&1 == 0:
		case first:
			h, first = t.peaks[level], false
		default:
			h = nodeHash(&t.peaks[level], &h)
		}
	}
	return h
}

// rootAt returns the root hash of the first size leaves.
func (t *hashTree) rootAt(size uint64) ([hashSize]byte, error) {
	if now := t.size(); size > now {
		return [hashSize]byte{}, fmt.Errorf("root of %d entries of a log of %d", size, now)
	}
	return tlog.TreeHash(int64(size), t)
}

// truncate goes back to the first size leaves. After an error the tree must
// be closed and built again. The files keep what is beyond until it is
// overwritten.
func (t *hashTree) truncate(size uint64) error {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if size > t.n {
		return fmt.Errorf("truncating the hash tree in %s from %d to %d leaves", t.dir, t.n, size)
	}
	t.cacheMu.Lock()
	t.cache = nil
	t.cacheMu.Unlock()
	for level, r := range t.rows {
		count := size >> (tileHeight * level)
		if count == 0 {
			gone := t.rows[level:]
			t.rows = t.rows[:level:level]
			if err := closeRows(gone); err != nil {
				return err
			}
			break
		}
		if start := count &^ (tileWidth - 1); start < r.base {
			r.base = start
			r.mem = make([]byte, (count-start)*hashSize)
			if err := readHashFile(r.file, r.mem, start, t.fileName(level)); err != nil {
				return err
			}
		}
		r.mem = r.mem[:(count-r.base)*hashSize]
		r.flushed = min(r.flushed, count)
	}
	t.n = size
	t.setPeaks()
	return nil
}

// flush writes all hashes up to now into the files. It costs what was
// appended since the last flush, and appending goes on beside it. The files
// are not synced: see sync. After an error the hashes stay in memory and the
// next flush tries again.
func (t *hashTree) flush() error {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	if t.closed {
		return fmt.Errorf("writing the hash tree in %s: %w", t.dir, ErrClosed)
	}
	t.mu.RLock()
	rows := t.rows // only ever grows while flushMu is held
	t.mu.RUnlock()
	for level, r := range rows {
		if err := t.flushRow(level, r); err != nil {
			return fmt.Errorf("writing the hash tree: %w", err)
		}
	}
	return nil
}

func (t *hashTree) flushRow(level int, r *hashRow) error {
	t.mu.RLock()
	from, to := r.flushed, r.count()
	// Appending may move mem elsewhere or write behind this slice, but
	// changes none of its bytes.
	pending := r.mem[(from-r.base)*hashSize : (to-r.base)*hashSize]
	file := r.file
	t.mu.RUnlock()
	if from == to {
		return nil
	}
	if file == nil {
		var err error
		if file, err = t.createRow(level); err != nil {
			return err
		}
		t.mu.Lock()
		r.file = file
		t.mu.Unlock()
	}
	r.dirty = true
	if _, err := file.WriteAt(pending, int64(from)*hashSize); err != nil {
		return fmt.Errorf("%s: %w", t.fileName(level), err)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	r.flushed = to
	base := to &^ (tileWidth - 1)
	rest := r.mem[(base-r.base)*hashSize:]
	if cap(r.mem) > keepSpare {
		r.mem = append([]byte(nil), rest...)
	} else {
		r.mem = append(r.mem[:0], rest...)
	}
	r.base = base
	return nil
}

// createRow returns an empty file for a row.
func (t *hashTree) createRow(level int) (disk.File, error) {
	name := t.fileName(level)
	t.newName = true // a process that was killed may have made it, and not durably
	f, err := t.disk.Open(name)
	if errors.Is(err, iofs.ErrNotExist) {
		if err := t.disk.MkdirAll(t.dir); err != nil {
			return nil, err
		}
		return t.disk.Create(name)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return f, nil
}

// sync makes durable what was flushed.
func (t *hashTree) sync() error {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	if t.closed {
		return fmt.Errorf("syncing the hash tree in %s: %w", t.dir, ErrClosed)
	}
	t.mu.RLock()
	rows := t.rows
	t.mu.RUnlock()
	for level, r := range rows {
		if !r.dirty {
			continue
		}
		if err := r.file.Datasync(); err != nil {
			return fmt.Errorf("syncing the hash tree: %s: %w", t.fileName(level), err)
		}
		r.dirty = false
	}
	if t.newName {
		if err := t.disk.SyncDir(t.dir); err != nil {
			return fmt.Errorf("syncing the hash tree: %w", err)
		}
		t.newName = false
	}
	return nil
}

// close closes the files. What was not flushed is lost.
func (t *hashTree) close() error {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return closeRows(t.rows)
}

func closeRows(rows []*hashRow) error {
	var errs []error
	for _, r := range rows {
		if r.file != nil {
			errs = append(errs, r.file.Close())
			r.file = nil
		}
	}
	return errors.Join(errs...)
}

func (t *hashTree) fileName(level int) string {
	return filepath.Join(t.dir, "hash."+strconv.Itoa(level))
}

// readHashFile fills dst with the hashes of a row from number first.
func readHashFile(f disk.File, dst []byte, first uint64, name string) error {
	if len(dst) == 0 {
		return nil
	}
	if _, err := f.ReadAt(dst, int64(first)*hashSize); err != nil {
		return fmt.Errorf("%w: hashes from %d in %s: %w", ErrDamaged, first, name, err)
	}
	return nil
}

// nodeHash returns the RFC 6962 hash of an inner node.
func nodeHash(left, right *[hashSize]byte) [hashSize]byte {
	var b [1 + 2*hashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+hashSize:], right[:])
	return sha256.Sum256(b[:])
}

// subtreeHash returns the root of the complete subtree over hashes, which
// are a power of two in number.
func subtreeHash(hashes []byte) [hashSize]byte {
	if len(hashes) == hashSize {
		return [hashSize]byte(hashes)
	}
	half := len(hashes) / 2
	left, right := subtreeHash(hashes[:half]), subtreeHash(hashes[half:])
	return nodeHash(&left, &right)
}
