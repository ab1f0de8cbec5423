package log

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

// appendAll appends control entries and a commit.
func appendAll(s *Store, controls []Control, text string) error {
	for _, c := range controls {
		if _, err := s.AppendControl(c); err != nil {
			return err
		}
	}
	stored, err := s.Keys().Seal(nil, seal.Commit, []byte(text))
	if err != nil {
		return err
	}
	_, _, err = s.Own().Commit(stored, true)
	return err
}

// linkTo makes a share link and returns the name of its boxes.
func linkTo(s *Store, kind RecipientKind, seed [32]byte) ([32]byte, error) {
	make := s.LinkBoxes
	if kind == RecipientHolder {
		make = s.HoldBoxes
	}
	controls, err := make(seed)
	if err != nil {
		return [32]byte{}, err
	}
	return controls[0].(*Recipient).ID(), appendAll(s, controls, "a link")
}

// TestRevokeCrashes crashes the machine, or the process, and lets disks fail,
// while links are revoked: an epoch has begun for all who belong to it, or not
// at all, and what is read and sealed then fits.
func TestRevokeCrashes(t *testing.T) {
	reader, holder, other := seed32(1), seed32(2), seed32(3)
	var begun atomic.Int64 // runs are beside each other
	crashfs.Explore(t, 120, 1, func(run *crashfs.Run) error {
		o := func() StoreOptions {
			return StoreOptions{FS: run.FS, Dir: "/drive", Machine: "m", Inline: true, Tiny: true}
		}
		s, err := CreateStore(o(), "x")
		if err != nil {
			return err
		}
		var ids [3][32]byte
		for i, seed := range [][32]byte{reader, holder, other} {
			if ids[i], err = linkTo(s, []RecipientKind{RecipientLink, RecipientHolder, RecipientLink}[i], seed); err != nil {
				return err
			}
		}
		acked := uint32(0)
		gone := [3]bool{}
		for life := range 3 {
			run.Arm(crashfs.Plan{Crash: 40, Fault: 0.02})
			victim := run.Rand.IntN(3)
			controls, err := s.Revoke(ids[victim])
			if err == nil {
				if err = appendAll(s, controls, "revoked"); err == nil {
					acked, gone[victim] = s.HoldEpoch(), true
				}
			}
			run.Logf("revoke %d: %v", victim, err)
			run.Logf("more: %v", appendAll(s, nil, "more"))
			run.Logf("close: %v", s.Close())
			run.Reboot()
			if s, err = OpenStore(o()); err != nil {
				return fmt.Errorf("life %d: %w", life, err)
			}
			if s.HoldEpoch() < acked || s.HoldEpoch() != s.membership.Epoch() {
				return fmt.Errorf("epoch %d is sealed under, %d has begun, %d was acknowledged", s.HoldEpoch(), s.membership.Epoch(), acked)
			}
			read, ok := s.readKeys()[s.HoldEpoch()]
			if !ok {
				return errors.New("no read key")
			}
			for i, id := range ids {
				box, belongs := s.membership.Box(s.HoldEpoch(), id)
				if gone[i] && belongs {
					return fmt.Errorf("link %d was revoked and has a box", i)
				}
				if !belongs {
					gone[i] = true // though nobody was told
					continue
				}
				kind, seed, want := RecipientLink, [][32]byte{reader, holder, other}[i], [32]byte(read)
				if i == 1 {
					kind, want = RecipientHolder, s.HoldSecret()
				}
				key, err := NewBoxKey(kind, seed)
				if err != nil {
					return err
				}
				if got, err := OpenBox(s.id, box, key); err != nil || got != want {
					return fmt.Errorf("link %d: another key: %w", i, err)
				}
			}
			if n := s.membership.Epoch(); n > 0 {
				begun.Add(1)
				if left := len(s.membership.Boxes(n)); left > 2 {
					return fmt.Errorf("%d boxes after a link was revoked", left)
				}
			}
			own := s.Own()
			for i := range own.Head().Size {
				if own.IsControl(i) {
					continue
				}
				if _, err := own.ReadBlock(nil, i, seal.Commit); err != nil {
					return fmt.Errorf("entry %d: %w", i, err)
				}
			}
			if err := appendAll(s, nil, "again"); err != nil {
				return err
			}
		}
		return s.Close()
	})
	if begun.Load() == 0 {
		t.Error("no epoch ever began")
	}
}

// A box of an epoch that was not begun is of no use, whoever shows it.
func TestStrayBoxes(t *testing.T) {
	s, err := CreateStore(StoreOptions{Dir: filepath.Join(t.TempDir(), "d")}, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids [][32]byte
	for i := range byte(3) {
		id, err := linkTo(s, RecipientLink, seed32(i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	g := s.Genesis()
	seed := seed32(1)
	joined, err := JoinStore(StoreOptions{Dir: filepath.Join(t.TempDir(), "j")}, Joined{Genesis: &g, Name: "x", Hold: s.HoldSecret(), Link: &seed})
	if err != nil {
		t.Fatal(err)
	}
	defer joined.Close()

	// The disk is full behind the boxes.
	controls, err := s.Revoke(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, last := controls[len(controls)-1].(*EpochBegun); !last {
		t.Fatalf("the epoch begins before its boxes: %v", controls)
	}
	if err := appendAll(s, controls[:len(controls)-1], "not begun"); err != nil {
		t.Fatal(err)
	}
	if s.HoldEpoch() != 0 || len(s.BoxesFor(ids[1])) != 1 {
		t.Fatalf("epoch %d, boxes %v", s.HoldEpoch(), s.BoxesFor(ids[1]))
	}
	stray := controls[0].(*KeyBox)
	if stray.Recipient != ids[1] {
		stray = controls[1].(*KeyBox)
	}
	if controls, err = s.Revoke(ids[1]); err != nil { // another one, then
		t.Fatal(err)
	}
	if err := appendAll(s, controls, "begun"); err != nil {
		t.Fatal(err)
	}
	e := s.NewestEpoch()
	if e.Epoch != 2 || s.HoldEpoch() != 2 {
		t.Fatalf("epoch %d begun, %d used", e.Epoch, s.HoldEpoch())
	}
	if _, err := s.Revoke(ids[1]); !errors.Is(err, ErrAbsent) {
		t.Fatalf("revoked twice: %v", err)
	}
	links := s.Links()
	if len(links) != 3 || links[0].Revoked || !links[1].Revoked || links[2].Revoked || links[1].ID != ids[1] {
		t.Fatalf("links %+v", links)
	}

	// What the other device makes of what it is told.
	first := *e
	first.Epoch = 1
	if err := joined.CheckEpoch(&first); !errors.Is(err, ErrRefused) {
		t.Fatalf("an epoch that the owner did not sign: %v", err)
	}
	if err := joined.TakeBox(&first, stray); !errors.Is(err, ErrRefused) {
		t.Fatalf("a box of it: %v", err)
	}
	if err := joined.TakeBox(e, s.BoxesFor(ids[2])[1]); !errors.Is(err, ErrBox) {
		t.Fatalf("a box for another device: %v", err)
	}
	forged := *s.BoxesFor(ids[1])[0]
	forged.Sealed[5] ^= 1
	if err := joined.TakeBox(e, &forged); !errors.Is(err, ErrRefused) {
		t.Fatalf("a box that was changed: %v", err)
	}
	for _, box := range append(s.BoxesFor(ids[1]), stray) {
		if err := joined.TakeBox(e, box); err != nil {
			t.Fatal(err)
		}
	}
	if joined.HoldEpoch() >= 2 {
		t.Fatal("a revoked device has the hold secret")
	}
	for range 2 {
		news, err := joined.End(e)
		if err != nil || !joined.Ended() {
			t.Fatalf("%v, %v", news, err)
		}
	}
	if _, err := joined.Revoke(ids[2]); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("a reader revoked a link: %v", err)
	}
}

// A link that is made after an epoch has begun gives what all before it give,
// and a store that is opened again has it still.
func TestLaterLink(t *testing.T) {
	dir := t.TempDir()
	s, err := CreateStore(StoreOptions{Dir: filepath.Join(dir, "d")}, "x")
	if err != nil {
		t.Fatal(err)
	}
	first := s.HoldSecret()
	id, err := linkTo(s, RecipientLink, seed32(1))
	if err != nil {
		t.Fatal(err)
	}
	controls, err := s.Revoke(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := appendAll(s, controls, "revoked"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(StoreOptions{Dir: filepath.Join(dir, "d")}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.HoldEpoch() != 1 || s.HoldSecret() == first || s.HoldSecrets()[1] != first {
		t.Fatalf("epoch %d", s.HoldEpoch())
	}
	for kind, seed := range map[RecipientKind][32]byte{RecipientLink: seed32(2), RecipientHolder: seed32(3)} {
		if _, err := linkTo(s, kind, seed); err != nil {
			t.Fatal(err)
		}
		g := s.Genesis()
		j := Joined{Genesis: &g, Name: "x", Hold: s.HoldSecret(), Epoch: 1, Link: &seed}
		if kind == RecipientHolder {
			j.Link, j.Holder = nil, &seed
		}
		at := filepath.Join(dir, fmt.Sprint(kind))
		joined, err := JoinStore(StoreOptions{Dir: at}, j)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Own().Size() {
			if c, err := s.Own().ReadControl(i); err == nil {
				if err := joined.membership.Apply(0, i, c); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := joined.OpenBoxes(); err != nil {
			t.Fatal(err)
		}
		if err := joined.Close(); err != nil {
			t.Fatal(err)
		}
		if joined, err = OpenStore(StoreOptions{Dir: at}); err != nil {
			t.Fatal(err)
		}
		if got, want := joined.HoldSecrets(), s.HoldSecrets(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("kind %d: other hold secrets", kind)
		}
		if joined.CanRead() != (kind == RecipientLink) || joined.Ended() {
			t.Errorf("kind %d: reads %v, ended %v", kind, joined.CanRead(), joined.Ended())
		}
		if kind == RecipientLink {
			b, err := s.Own().ReadStored(nil, s.Own().Head().Size-1)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := joined.Keys().Open(nil, seal.Commit, b); err != nil || !bytes.Equal(plain, []byte("a link")) {
				t.Errorf("%q, %v", plain, err)
			}
		}
		if err := joined.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type tilesOf struct {
	a *author
	n int
}

func (s *tilesOf) Fetch(l *Log, indexes []uint64) error { return l.missing(indexes[0]) }

func (s *tilesOf) FetchTiles(l *Log, index uint64) error {
	s.n++
	tiles, err := l.Lacking(nil, index)
	if err != nil {
		return err
	}
	for _, ref := range tiles {
		data, err := s.a.Tile(ref, tileWidth)
		if err == nil {
			err = l.AddTile(ref, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Any root of the past can be had on a replica that has but the newest edge.
func TestFetchRoot(t *testing.T) {
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, rand.New(rand.NewPCG(1, 2)), 700)
	l, err := createReplica(replicaOptions(a, filepath.Join(t.TempDir(), "r")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := a.follow(l); err != nil {
		t.Fatal(err)
	}
	if _, err := l.FetchRoot(100); !errors.Is(err, ErrMissing) {
		t.Fatalf("without anybody to ask: %v", err)
	}
	source := &tilesOf{a: a}
	l.SetSource(source)
	for _, size := range []uint64{1, 100, 255, 256, 257, 511, 512, 513, 699, 700} {
		want, err := a.Root(size)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.FetchRoot(size); err != nil || got != want {
			t.Errorf("%d entries: %v, %x for %x", size, err, got, want)
		}
	}
	if source.n == 0 {
		t.Error("nobody was asked")
	}
}
