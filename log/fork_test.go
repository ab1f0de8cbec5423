package log

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"hearth/log/disk"
	"hearth/log/seal"
)

// branched returns two authors with one key, of which the second has a copy of
// the first n entries of the first and goes on from there.
func branched(t *testing.T, r *rand.Rand, n int) (a, b *author) {
	t.Helper()
	dir := t.TempDir()
	a = newAuthor(t, filepath.Join(dir, "a"))
	a.grow(t, r, n)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "b"), os.DirFS(filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	keys := seal.NewKeyring()
	keys.Add(0, [32]byte{1})
	var both []*author
	for _, name := range []string{"a", "b"} {
		l, err := OpenLog(Options{FS: disk.OS{}, Dir: filepath.Join(dir, name), Signer: NewSigner([32]byte{2}), Keys: keys, Tiny: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		c := *a
		c.Log, c.keys = l, keys
		both = append(both, &c)
	}
	return both[0], both[1]
}

// A newer head of another branch is told from a bad proof, whoever sends it,
// and what is kept of it convinces others.
func TestForkProof(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ common, here, there int }{
		{10, 6, 20}, {100, 28, 1}, {100, 28, 200}, {5, 251, 2000}, {300, 212, 400}, {3, 5, 300}, {300, 77, 1500},
	} {
		r := rand.New(rand.NewPCG(uint64(c.common), uint64(c.there)))
		a, b := branched(t, r, c.common)
		a.grow(t, r, c.here)
		for b.Head().Size <= a.Head().Size {
			b.grow(t, r, c.there)
		}
		l, err := createReplica(replicaOptions(a, filepath.Join(t.TempDir(), "r")))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := a.follow(l); err != nil {
			t.Fatal(err)
		}
		known := l.Head()
		p, err := b.ProveHead(known.Size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Advance(p); !errors.Is(err, ErrProof) || errors.Is(err, ErrFork) || len(p.Leaves) > 0 && !errors.Is(err, ErrUndecided) {
			t.Fatalf("%+v without a base: %v", c, err)
		}
		if err := b.AddBase(&p); err != nil {
			t.Fatal(err)
		}
		var fork *forkError
		if _, err := l.Advance(p); !errors.As(err, &fork) {
			t.Fatalf("%+v: %v", c, err)
		}
		f := fork.evidence()
		if err := f.Verify(a.Verifier()); err != nil {
			t.Fatalf("%+v: the evidence: %v", c, err)
		}
		if f.Known != string(known.Note) || f.Other != string(b.Head().Note) {
			t.Fatalf("the evidence is of other heads: %+v", f)
		}
		f.Other = f.Known
		if f.Verify(a.Verifier()) == nil {
			t.Fatal("one head is taken for a fork")
		}
		// The same the other way round: a shorter head.
		if err := b.compare(known, nil); !errors.As(err, &fork) {
			t.Fatalf("%+v, a shorter head: %v", c, err)
		}
		f = fork.evidence()
		if err := f.Verify(a.Verifier()); err != nil {
			t.Fatalf("%+v: the evidence of a shorter head: %v", c, err)
		}
		// Lies.
		for what, lie := range map[string]func(*HeadProof){
			"another base":        func(p *HeadProof) { p.Base[3] ^= 1 },
			"the reader's base":   func(p *HeadProof) { p.Base = bytes.Clone(known.Root[:]) },
			"a short base":        func(p *HeadProof) { p.Base = p.Base[:31] },
			"another proof":       func(p *HeadProof) { p.Consistency[0][5] ^= 1 },
			"no proof":            func(p *HeadProof) { p.Consistency = nil },
			"of another size":     func(p *HeadProof) { p.Old++ },
			"another's signature": func(p *HeadProof) { p.Note = bytes.Replace(p.Note, []byte("\n"), []byte("x\n"), 1) },
		} {
			bad := p
			bad.Base = bytes.Clone(p.Base)
			bad.Consistency = append(bad.Consistency[:0:0], p.Consistency...)
			lie(&bad)
			if _, err := l.Advance(bad); err == nil || errors.Is(err, ErrFork) {
				t.Fatalf("%+v, %s: %v", c, what, err)
			}
		}
		if l.Head().Root != known.Root {
			t.Fatal("the head has changed")
		}
		// It goes on on its branch.
		a.grow(t, r, 30)
		p, err = a.ProveHead(known.Size)
		if err == nil {
			err = a.AddBase(&p)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Advance(p); err != nil || l.Head().Size != known.Size+30 {
			t.Fatalf("%+v, on its own branch: %v", c, err)
		}
	}
}

// A reader that has lost its tree goes on from the head that was remembered.
func TestReplicaWithoutTree(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, r, 300)
	o := replicaOptions(a, filepath.Join(t.TempDir(), "r"))
	o.Known = a.Head()
	l, err := createReplica(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a.grow(t, r, 5)
	p, err := a.ProveHead(l.Known().Size)
	if err == nil {
		err = a.AddBase(&p)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Advance(p); err != nil || l.Head().Size != 305 {
		t.Fatalf("%d entries: %v", l.Head().Size, err)
	}
}
