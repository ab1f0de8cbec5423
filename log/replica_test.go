package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"hearth/log/disk"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"
)

// author is a log that grows, and what was appended to it.
type author struct {
	*Log
	keys    *seal.Keyring
	entries [][]byte // stored blocks and control entries
	control []bool
	plain   bool // grow appends no control entries
}

func newAuthor(t testing.TB, dir string) *author {
	t.Helper()
	keys := seal.NewKeyring()
	keys.Add(0, [32]byte{1})
	l, err := CreateLog(Options{FS: disk.OS{}, Dir: dir, Signer: NewSigner([32]byte{2}), Keys: keys, Tiny: true})
	if err != nil {
		t.Fatal(err)
	}
	return &author{Log: l, keys: keys}
}

// grow appends n entries and commits.
func (a *author) grow(t interface{ Fatal(...any) }, r *rand.Rand, n int) {
	for i := range n {
		if !a.plain && i%7 == 3 && i < n-1 {
			c := &Recipient{Kind: RecipientLink}
			c.Key[0], c.Key[1] = byte(len(a.entries)), byte(len(a.entries)>>8)
			b, err := EncodeControl(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.AppendControl(c); err != nil {
				t.Fatal(err)
			}
			a.entries, a.control = append(a.entries, b), append(a.control, true)
			continue
		}
		plain := make([]byte, 1+r.IntN(3000))
		for j := range plain {
			plain[j] = byte(r.Uint32())
		}
		kind := seal.Data
		if i == n-1 {
			kind = seal.Commit
		}
		stored, err := a.keys.Seal(nil, kind, plain)
		if err != nil {
			t.Fatal(err)
		}
		if i == n-1 {
			_, _, err = a.Commit(stored, true)
		} else {
			_, err = a.Append(stored)
		}
		if err != nil {
			t.Fatal(err)
		}
		a.entries, a.control = append(a.entries, stored), append(a.control, false)
	}
}

// send adds an entry with the tiles that it needs.
func (a *author) send(to *Log, index uint64) error {
	tiles, err := to.Lacking(nil, index)
	if err != nil {
		return err
	}
	for _, ref := range tiles {
		data, err := a.Tile(ref, tileWidth)
		if err != nil {
			return err
		}
		if err := to.AddTile(ref, data); err != nil {
			return err
		}
	}
	if a.control[index] {
		return to.AddControlEntry(index, a.entries[index])
	}
	return to.AddBlock(index, a.entries[index])
}

func (a *author) follow(to *Log) error {
	p, err := a.ProveHead(to.Known().Size)
	if err != nil {
		return err
	}
	_, err = to.Advance(p)
	return err
}

func replicaOptions(a *author, dir string) Options {
	return Options{FS: disk.OS{}, Dir: dir, Verifier: a.Verifier(), Keys: a.keys, Tiny: true}
}

// A replica that gets heads, tiles and entries in any order, and is closed or
// killed in between, has what it got and nothing else.
func TestReplica(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		a := newAuthor(t, filepath.Join(base, "a"))
		defer a.Close()
		o := replicaOptions(a, filepath.Join(base, "r"))
		l, err := createReplica(o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { l.Close() }()
		sent := map[uint64]bool{}
		settled := map[uint64]bool{}
		steps := rapid.SliceOfN(rapid.IntRange(0, 11), 1, 40).Draw(rt, "steps")
		for _, step := range steps {
			switch {
			case step == 0:
				a.grow(rt, r, 1+r.IntN(20))
			case step == 1:
				a.grow(rt, r, 1+r.IntN(1500))
			case step <= 3 && a.Head().Size > 0:
				if err := a.follow(l); err != nil {
					rt.Fatal(err)
				}
				if l.Head().Root != a.Head().Root || l.Size() != a.Head().Size {
					rt.Fatalf("head %v of %v", l.Head().Size, a.Head().Size)
				}
			case step == 4: // in good order
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				o.Known = l.Head()
				if l, err = openReplica(o); err != nil {
					rt.Fatal(err)
				}
				if l.Head().Size != o.Known.Size {
					rt.Fatalf("head %d after opening, not %d", l.Head().Size, o.Known.Size)
				}
			case step == 5:
				if err := l.Settle(); err != nil {
					rt.Fatal(err)
				}
				o.Known = l.Head()
				for i := range sent {
					settled[i] = true
				}
			case step == 6 && r.IntN(3) == 0: // killed
				dir := filepath.Join(base, fmt.Sprint("k", r.Uint64()))
				if err := os.CopyFS(dir, os.DirFS(o.Dir)); err != nil {
					rt.Fatal(err)
				}
				l.Close()
				o.Dir = dir
				if l, err = openReplica(o); err != nil {
					rt.Fatal(err)
				}
				for i := range settled {
					if !l.Holds(i) {
						rt.Fatalf("entry %d was settled and is gone", i)
					}
				}
				for i := range sent {
					if !l.Holds(i) {
						delete(sent, i)
					}
				}
			case step <= 8 && l.Head().Size > 0:
				for range 1 + r.IntN(30) {
					i := r.Uint64N(l.Head().Size)
					if err := a.send(l, i); err != nil {
						rt.Fatal(err)
					}
					sent[i] = true
				}
			case step == 9 && l.Head().Size > 0: // much at once, in order
				first := r.Uint64N(l.Head().Size)
				for i := first; i < min(first+uint64(r.IntN(400)), l.Head().Size); i++ {
					if err := a.send(l, i); err != nil {
						rt.Fatal(err)
					}
					sent[i] = true
				}
			case l.Head().Size > 0:
				set := someOf(r, l.Head().Size)
				if _, err := l.Evict(context.Background(), set); err != nil {
					rt.Fatal(err)
				}
				o.Known = l.Head()
				for i := range sent {
					if set.Contains(i) && !a.control[i] {
						delete(sent, i)
						delete(settled, i)
					}
				}
			}
		}
		if damage := l.Health().Damage; len(damage) > 0 {
			rt.Fatal(damage)
		}
		for i := range l.Size() {
			if l.Holds(i) != sent[i] {
				rt.Fatalf("entry %d: held %v, sent %v", i, l.Holds(i), sent[i])
			}
			b, err := l.ReadStored(nil, i)
			if sent[i] != (err == nil) || err == nil && !bytes.Equal(b, a.entries[i]) || err != nil && !errors.Is(err, ErrMissing) {
				rt.Fatalf("entry %d: %v", i, err)
			}
			if sent[i] && l.IsControl(i) != a.control[i] {
				rt.Fatalf("entry %d is taken for the other kind", i)
			}
		}
		if err := l.Verify(context.Background(), func(d Damage) { rt.Fatal(d) }, nil); err != nil {
			rt.Fatal(err)
		}
		if l.Size() > 0 {
			first, n := l.NextMissing(0, 1<<20)
			for i := range first {
				if !sent[i] {
					rt.Fatalf("%d is missing before %d", i, first)
				}
			}
			if n > 0 && sent[first] {
				rt.Fatalf("%d is not missing", first)
			}
			var missing uint64
			for i := range l.Size() {
				if !sent[i] {
					missing++
				}
			}
			if got := l.Missing(); got != missing {
				rt.Fatalf("%d entries are missing, not %d", got, missing)
			}
		}
	})
}

// someOf returns a part of the numbers below n: one or a few ranges, all of
// them, or every third.
func someOf(r *rand.Rand, n uint64) *roaring64.Bitmap {
	set := roaring64.New()
	switch r.IntN(6) {
	case 0:
		set.AddRange(0, n)
	case 1:
		for i := uint64(r.IntN(3)); i < n; i += 3 {
			set.Add(i)
		}
	default:
		for range 1 + r.IntN(3) {
			first := r.Uint64N(n)
			set.AddRange(first, min(n+7, first+1+r.Uint64N(300))) // also beyond the log
		}
	}
	return set
}

// What is wrong is refused, and changes nothing.
func TestReplicaRefuses(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, r, 700)
	l, err := createReplica(replicaOptions(a, filepath.Join(t.TempDir(), "r")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused := func(what string, err error, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
	}
	good, err := a.ProveHead(0)
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Note = bytes.Replace(good.Note, []byte("\n700\n"), []byte("\n701\n"), 1)
	_, err = l.Advance(bad)
	refused("another size", err, ErrCheckpoint)
	for level := range good.Edges {
		bad = good
		bad.Edges = append([][]byte(nil), good.Edges...)
		bad.Edges[level] = bytes.Clone(good.Edges[level])
		bad.Edges[level][3] ^= 1
		_, err = l.Advance(bad)
		refused("a flipped bit in an edge", err, ErrProof)
		bad.Edges[level] = good.Edges[level][:len(good.Edges[level])-hashSize]
		_, err = l.Advance(bad)
		refused("a short edge", err, ErrProof)
	}
	bad.Edges = good.Edges[:1]
	_, err = l.Advance(bad)
	refused("too few edges", err, ErrProof)
	refused("a block without a head", l.AddBlock(0, a.entries[0]), ErrAbsent)
	if _, err := l.Advance(good); err != nil {
		t.Fatal(err)
	}
	refused("a block without its tile", l.AddBlock(0, a.entries[0]), ErrAbsent)
	tile, err := a.Tile(TileRef{0, 0}, tileWidth)
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(tile)
	wrong[100] ^= 1
	refused("a wrong tile", l.AddTile(TileRef{0, 0}, wrong), ErrProof)
	refused("a tile in another's place", l.AddTile(TileRef{0, 1}, tile), ErrProof)
	refused("a partial tile", l.AddTile(TileRef{0, 2}, tile), ErrAbsent)
	refused("a tile beyond the tree", l.AddTile(TileRef{0, 1 << 40}, tile), ErrAbsent)
	refused("a tile of no level", l.AddTile(TileRef{9, 0}, tile), ErrAbsent)
	if err := l.AddTile(TileRef{0, 0}, tile); err != nil {
		t.Fatal(err)
	}
	block := bytes.Clone(a.entries[0])
	block[len(block)/2] ^= 1
	refused("a wrong block", l.AddBlock(0, block), ErrProof)
	refused("a block in another's place", l.AddBlock(1, a.entries[0]), ErrProof)
	refused("a block as a control entry", l.AddControlEntry(0, a.entries[0]), ErrProof)
	refused("a control entry as a block", l.AddBlock(3, a.entries[3]), ErrProof)
	refused("an empty block", l.AddBlock(0, nil), ErrProof)
	refused("a block beyond the head", l.AddBlock(700, a.entries[0]), ErrAbsent)
	if l.Holds(0) || l.Holds(1) || l.Holds(3) {
		t.Error("something refused is held")
	}
	if err := l.AddBlock(0, a.entries[0]); err != nil || !l.Holds(0) {
		t.Fatal(err)
	}
	// The log goes on, with leaves and by a jump.
	a.grow(t, r, 10)
	next, err := a.ProveHead(700)
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Leaves) != 10*hashSize {
		t.Fatalf("%d bytes of leaves", len(next.Leaves))
	}
	bad = next
	bad.Leaves = bytes.Clone(next.Leaves)
	bad.Leaves[40] ^= 1
	_, err = l.Advance(bad)
	refused("a flipped bit in a leaf", err, ErrProof)
	bad.Leaves = next.Leaves[:9*hashSize]
	_, err = l.Advance(bad)
	refused("too few leaves", err, ErrProof)
	a.grow(t, r, 2000)
	jump, err := a.ProveHead(700)
	if err != nil {
		t.Fatal(err)
	}
	bad = jump
	bad.Consistency = append(bad.Consistency[:0:0], jump.Consistency...)
	bad.Consistency[1][0] ^= 1
	_, err = l.Advance(bad)
	refused("a false consistency proof", err, ErrProof)
	if _, err := l.Advance(jump); err != nil {
		t.Fatal(err)
	}
	if old, err := l.Advance(good); err != nil || old.Size != 2710 {
		t.Fatalf("an old head: %v, %v", old, err)
	}
	// The same key signs another log.
	other := newAuthor(t, filepath.Join(t.TempDir(), "o"))
	defer other.Close()
	other.grow(t, r, 2710)
	fork, err := other.ProveHead(0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Advance(fork)
	refused("a fork", err, ErrFork)
}

// A source is asked for what is not here, once for all of it.
func TestReplicaSource(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, r, 600)
	l, err := createReplica(replicaOptions(a, filepath.Join(t.TempDir(), "r")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := a.follow(l); err != nil {
		t.Fatal(err)
	}
	var got [10]byte
	if err := l.ReadData([]Slice{{Index: 5, Dst: got[:1]}}); !errors.Is(err, ErrMissing) || !errors.Is(err, ErrAbsent) {
		t.Fatalf("without a source: %v", err)
	}
	var asked [][]uint64
	l.SetSource(sourceFunc(func(l *Log, indexes []uint64) error {
		asked = append(asked, indexes)
		for _, i := range indexes {
			if err := a.send(l, i); err != nil {
				return err
			}
		}
		return nil
	}))
	if err := l.ReadData([]Slice{{Index: 5, Dst: got[:1]}, {Index: 300, Dst: got[1:2]}, {Index: 5, Dst: got[2:3]}}); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || len(asked[0]) < 2 {
		t.Fatalf("asked for %v", asked)
	}
	if _, err := l.ReadBlock(nil, 599, seal.Commit); err != nil || len(asked) != 2 {
		t.Fatalf("%v, asked for %v", err, asked)
	}
	if _, err := l.ReadBlock(nil, 599, seal.Commit); err != nil || len(asked) != 2 {
		t.Fatalf("%v, asked for %v", err, asked)
	}
}

type sourceFunc func(l *Log, indexes []uint64) error

func (f sourceFunc) Fetch(l *Log, indexes []uint64) error { return f(l, indexes) }
