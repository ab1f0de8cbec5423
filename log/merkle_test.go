package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"hearth/log/disk"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// oracle is the tree of the Go project's library over the same leaves.
type oracle struct {
	leaves int64
	hashes []tlog.Hash
}

func (o *oracle) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = o.hashes[x]
	}
	return out, nil
}

func (o *oracle) append(leaf [32]byte) {
	more, err := tlog.StoredHashesForRecordHash(o.leaves, leaf, o)
	if err != nil {
		panic(err)
	}
	o.hashes = append(o.hashes, more...)
	o.leaves++
}

func (o *oracle) truncate(n uint64) {
	o.leaves = int64(n)
	o.hashes = o.hashes[:tlog.StoredHashCount(o.leaves)]
}

func (o *oracle) root(size uint64) [32]byte {
	h, err := tlog.TreeHash(int64(size), o)
	if err != nil {
		panic(err)
	}
	return h
}

// testLeaf returns a leaf hash that differs for each i.
func testLeaf(i uint64) [32]byte { return LeafHash(binary.BigEndian.AppendUint64(nil, i)) }

// grow appends n leaves to a tree and its oracle.
func grow(tree *hashTree, o *oracle, n int) {
	for range n {
		leaf := testLeaf(uint64(o.leaves))
		tree.append(leaf)
		o.append(leaf)
	}
}

// compare checks everything a tree says against its oracle, on a sample.
func compare(t rapid.TB, tree *hashTree, o *oracle) {
	t.Helper()
	size := uint64(o.leaves)
	if tree.size() != size || tree.root() != o.root(size) {
		t.Fatalf("size %d, root %x; want %d, %x", tree.size(), tree.root(), size, o.root(size))
	}
	all := make([]int64, 0, 300)
	step := int64(len(o.hashes)/300 + 1)
	for x := int64(0); x < int64(len(o.hashes)); x += step {
		all = append(all, x)
	}
	got, err := tree.ReadHashes(all)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range all {
		if got[i] != o.hashes[x] {
			t.Fatalf("stored hash %d is %v, want %v", x, got[i], o.hashes[x])
		}
	}
	for _, tile := range tlog.NewTiles(tileHeight, max(0, o.leaves-600), o.leaves) {
		want, err := tlog.ReadTileData(tile, o)
		if err != nil {
			t.Fatal(err)
		}
		data, err := tree.tile(tile.L, uint64(tile.N), tile.W)
		if err != nil || !bytes.Equal(data, want) {
			t.Fatalf("tile %+v differs: %v", tile, err)
		}
	}
	if _, err := tree.ReadHashes([]int64{int64(len(o.hashes))}); err == nil {
		t.Fatal("read a hash beyond the tree")
	}
}

func TestHashTreeAgainstTlog(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		defer os.RemoveAll(dir)
		tree, o := newHashTree(disk.OS{}, dir), &oracle{}
		defer func() { tree.close() }()
		flushed := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				grow(tree, o, rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(200, 700)).Draw(t, "n"))
			},
			"flush": func(t *rapid.T) {
				if err := tree.flush(); err != nil {
					t.Fatal(err)
				}
				if n := tree.unflushed(); n != 0 {
					t.Fatalf("%d leaves unflushed after a flush", n)
				}
				flushed = tree.size()
			},
			"sync": func(t *rapid.T) {
				if err := tree.sync(); err != nil {
					t.Fatal(err)
				}
			},
			"reopen": func(t *rapid.T) {
				size := rapid.Uint64Range(0, flushed).Draw(t, "size")
				if err := tree.close(); err != nil {
					t.Fatal(err)
				}
				again, err := openHashTree(disk.OS{}, dir, size, false)
				if err != nil {
					t.Fatal(err)
				}
				tree, flushed = again, size
				o.truncate(size)
			},
			"truncate": func(t *rapid.T) {
				size := rapid.Uint64Range(0, tree.size()).Draw(t, "size")
				if err := tree.truncate(size); err != nil {
					t.Fatal(err)
				}
				flushed = min(flushed, size)
				o.truncate(size)
			},
			"rootAt": func(t *rapid.T) {
				size := rapid.Uint64Range(0, tree.size()).Draw(t, "size")
				got, err := tree.rootAt(size)
				if err != nil || got != o.root(size) {
					t.Fatalf("root at %d: %x, %v", size, got, err)
				}
			},
			"": func(t *rapid.T) { compare(t, tree, o) },
		})
	})
}

// deepTree returns a flushed tree of three rows in dir.
func deepTree(t testing.TB, dir string) (*hashTree, *oracle) {
	t.Helper()
	tree, o := newHashTree(disk.OS{}, dir), &oracle{}
	for o.leaves < 2*65536+3*256+17 {
		grow(tree, o, 5000)
		if err := tree.flush(); err != nil {
			t.Fatal(err)
		}
	}
	return tree, o
}

func TestHashTreeDeep(t *testing.T) {
	dir := t.TempDir()
	tree, o := deepTree(t, dir)
	compare(t, tree, o)
	for _, r := range tree.rows {
		if len(r.mem) >= tileBytes {
			t.Errorf("%d bytes of a row in memory after a flush", len(r.mem))
		}
	}
	if err := errors.Join(tree.sync(), tree.close()); err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint64{0, 1, 255, 256, 257, 65535, 65536, 65537, 131072, uint64(o.leaves)} {
		tree, err := openHashTree(disk.OS{}, dir, size, false)
		if err != nil {
			t.Fatal(err)
		}
		if tree.size() != size || tree.root() != o.root(size) {
			t.Errorf("opened at %d: root differs", size)
		}
		if err := tree.close(); err != nil {
			t.Fatal(err)
		}
	}
	for level := range 3 {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("hash.%d", level)))
		if err != nil {
			t.Fatal(err)
		}
		if want := int(o.leaves>>(8*level)) * 32; len(data) != want {
			t.Errorf("hash.%d has %d bytes, want %d", level, len(data), want)
		}
	}
}

func TestOpenHashTreeRefuses(t *testing.T) {
	dir := t.TempDir()
	tree, o := newHashTree(disk.OS{}, dir), &oracle{}
	grow(tree, o, 1000)
	if err := errors.Join(tree.flush(), tree.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := openHashTree(disk.OS{}, dir, 1001, false); !errors.Is(err, ErrDamaged) {
		t.Errorf("file too short: %v", err)
	}
	if _, err := openHashTree(disk.OS{}, dir, 1<<60, false); err == nil {
		t.Error("opened at a size beyond any log")
	}
	if err := os.Remove(filepath.Join(dir, "hash.1")); err != nil {
		t.Fatal(err)
	}
	if _, err := openHashTree(disk.OS{}, dir, 1000, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file missing: %v", err)
	}
	if err := tree.truncate(1001); err == nil {
		t.Error("truncated to more than there is")
	}
	grow(tree, o, 10)
	_, err := tree.tile(0, 0, tileWidth)
	for what, err := range map[string]error{"flush": tree.flush(), "sync": tree.sync(), "tile": err} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after close: %v", what, err)
		}
	}
}

// A new tree replaces the files of an old one, whatever is in them.
func TestNewHashTreeReplaces(t *testing.T) {
	dir := t.TempDir()
	tree, o := newHashTree(disk.OS{}, dir), &oracle{}
	grow(tree, o, 1000)
	if err := errors.Join(tree.flush(), tree.close()); err != nil {
		t.Fatal(err)
	}
	tree, o = newHashTree(disk.OS{}, dir), &oracle{}
	grow(tree, o, 300)
	if err := errors.Join(tree.flush(), tree.sync(), tree.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := openHashTree(disk.OS{}, dir, 301, false); !errors.Is(err, ErrDamaged) {
		t.Errorf("hashes of the old tree are still there: %v", err)
	}
}

// Any byte changed in a file is found: at opening, when the root is compared,
// or when the tile is wanted. Nothing false is ever returned.
func TestHashTreeRot(t *testing.T) {
	dir := t.TempDir()
	tree, o := deepTree(t, dir)
	if err := tree.close(); err != nil {
		t.Fatal(err)
	}
	size := uint64(o.leaves)
	rng := rand.New(rand.NewPCG(1, 2))
	for level := range 3 {
		name := filepath.Join(dir, fmt.Sprintf("hash.%d", level))
		sound, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			at := rng.IntN(len(sound))
			rotten := bytes.Clone(sound)
			rotten[at] ^= 1 << rng.IntN(8)
			if err := os.WriteFile(name, rotten, 0o600); err != nil {
				t.Fatal(err)
			}
			checkRot(t, dir, o, size, level, uint64(at)/tileBytes)
		}
		if err := os.WriteFile(name, sound[:len(sound)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openHashTree(disk.OS{}, dir, size, false); !errors.Is(err, ErrDamaged) {
			t.Errorf("half of %s: %v", name, err)
		}
		if err := os.WriteFile(name, sound, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func checkRot(t *testing.T, dir string, o *oracle, size uint64, level int, n uint64) {
	t.Helper()
	tree, err := openHashTree(disk.OS{}, dir, size, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	if tree.root() != o.root(size) {
		return // the caller compares with a signed checkpoint
	}
	if _, err := tree.tile(level, n, tileWidth); !errors.Is(err, ErrDamaged) {
		t.Errorf("rot in tile %d/%d: %v", level, n, err)
	}
	leaf := n << (8 * (level + 1)) // one whose proof may need the tile
	for i := leaf; i < min(size, leaf+300); i += 7 {
		p, err := tree.proveInclusion(i, size)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			continue
		}
		if err := tlog.CheckRecord(p, int64(size), o.root(size), int64(i), testLeaf(i)); err != nil {
			t.Errorf("rot in tile %d/%d: a wrong proof of %d was returned", level, n, i)
		}
	}
}

// Readers run beside one goroutine that appends and one that flushes.
func TestHashTreeConcurrentReaders(t *testing.T) {
	tree, o := newHashTree(disk.OS{}, t.TempDir()), &oracle{}
	defer tree.close()
	grow(tree, o, 1000)
	frozen := &oracle{leaves: o.leaves, hashes: slices.Clone(o.hashes)}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := int64(w); ; i = (i*7 + 13) % int64(len(frozen.hashes)) {
				select {
				case <-done:
					return
				default:
				}
				got, err := tree.ReadHashes([]int64{i})
				if err != nil || got[0] != frozen.hashes[i] {
					t.Errorf("stored hash %d: %v, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := tree.flush(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	grow(tree, o, 20000)
	close(done)
	wg.Wait()
	compare(t, tree, o)
}

// full is a disk on which nothing can be written while on is set.
type full struct {
	disk.FS
	on bool
}

type fullFile struct {
	disk.File
	d *full
}

var errFull = errors.New("no space left")

func (d *full) Create(name string) (disk.File, error) {
	f, err := d.FS.Create(name)
	return fullFile{f, d}, err
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if f.d.on {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, errFull
	}
	return f.File.WriteAt(p, off)
}

// A flush that failed half-way is made good by the next.
func TestHashTreeFlushFails(t *testing.T) {
	d := &full{FS: disk.OS{}}
	dir := t.TempDir()
	tree, o := newHashTree(d, dir), &oracle{}
	grow(tree, o, 700)
	if err := tree.flush(); err != nil {
		t.Fatal(err)
	}
	d.on = true
	grow(tree, o, 5000)
	if err := tree.flush(); !errors.Is(err, errFull) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	compare(t, tree, o)
	d.on = false
	grow(tree, o, 10)
	if err := errors.Join(tree.flush(), tree.close()); err != nil {
		t.Fatal(err)
	}
	tree, err := openHashTree(d, dir, uint64(o.leaves), false)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	compare(t, tree, o)
}

func BenchmarkHashTreeAppend(b *testing.B) {
	tree := newHashTree(disk.OS{}, b.TempDir())
	defer tree.close()
	leaf := testLeaf(1)
	for b.Loop() {
		tree.append(leaf)
		if tree.n%(1<<16) == 0 {
			if err := tree.flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkHashTreeRoot(b *testing.B) {
	tree := newHashTree(disk.OS{}, b.TempDir())
	for i := range uint64(1<<17 - 1) {
		tree.append(testLeaf(i))
	}
	for b.Loop() {
		tree.root()
	}
}

func BenchmarkProveInclusion(b *testing.B) {
	tree, o := deepTree(b, b.TempDir())
	defer tree.close()
	i := uint64(0)
	for b.Loop() {
		i = (i + 12345) % uint64(o.leaves)
		if _, err := tree.proveInclusion(i, uint64(o.leaves)); err != nil {
			b.Fatal(err)
		}
	}
}
