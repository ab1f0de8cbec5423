package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"hearth/log/disk/crashfs"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// smallStore is a closed store with a bit of everything in it.
type smallStore struct {
	disk    *crashfs.FS
	options StoreOptions
	blocks  map[uint64][]byte // what can be read
	dropped *roaring64.Bitmap
	size    uint64
	dead    []location // of dropped blocks whose bytes are still there
}

// isDead reports whether nobody wants a byte of a segment.
func (s *smallStore) isDead(path string, off int64) bool {
	for _, loc := range s.dead {
		start := loc.offset() + frameHeader
		if strings.HasSuffix(path, "/seg/"+segmentName(loc.segment())) && off >= start && off < start+int64(loc.length()) {
			return true
		}
	}
	return false
}

func newSmallStore(t testing.TB) *smallStore {
	t.Helper()
	d := crashfs.New(1)
	s := &smallStore{
		disk: d, blocks: make(map[uint64][]byte), dropped: roaring64.New(),
		options: StoreOptions{
			FS: d, Dir: "/drive", Machine: "m", Inline: true, Tiny: true,
			Random: zeroReader{}, Logger: slog.New(slog.DiscardHandler),
		},
	}
	st := mustCreateStore(t, s.options)
	l := st.Own()
	rng := rand.New(rand.NewPCG(1, 1))
	add := func(n int, fn func([]byte) (uint64, error)) {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		index, err := fn(b)
		if err != nil {
			t.Fatal(err)
		}
		s.blocks[index] = b
	}
	commit := func(b []byte) (uint64, error) {
		index, _, err := l.Commit(b, true)
		return index, err
	}
	fill := func(n int) {
		for i := range n {
			add(30+rng.IntN(60), l.Append)
			if i%25 == 24 {
				add(100, commit)
			}
		}
	}
	fill(100)
	for range 3 {
		add(80<<10, l.Append)
	}
	add(100, commit)
	fill(100)
	s.dropped.AddRange(3, 9)
	s.dropped.AddRange(20, 120)
	for range 3 { // begins another segment
		add(80<<10, l.Append)
	}
	add(100, commit)
	fill(75)
	if err := l.Drop(context.Background(), s.dropped); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Erase(context.Background()); err != nil {
		t.Fatal(err)
	}
	more := roaring64.New()
	more.AddRange(150, 155)
	if err := l.Drop(context.Background(), more); err != nil {
		t.Fatal(err)
	}
	s.dropped.Or(more)
	if _, err := st.AppendControl(SplitDropped(0, s.dropped)[0]); err != nil {
		t.Fatal(err)
	}
	add(100, commit)
	s.size = l.Size()
	for _, index := range more.ToArray() {
		s.dead = append(s.dead, l.locs.get(index))
	}
	for _, index := range s.dropped.ToArray() {
		delete(s.blocks, index)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// zeroReader makes keys that are the same in each run.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// inspect opens the store on d, reads everything, and returns what it found
// to be damaged: nothing that is returned may be wrong.
func (s *smallStore) inspect(d *crashfs.FS) (found []string, err error) {
	o := s.options
	o.FS = d
	st, err := OpenStore(o)
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrEntry) {
			return nil, fmt.Errorf("the error is of no kind: %w", err)
		}
		return []string{err.Error()}, nil
	}
	l := st.Own()
	if l.Size() != s.size {
		return nil, fmt.Errorf("%d entries, want %d", l.Size(), s.size)
	}
	var unreadable int
	for index, want := range s.blocks {
		got, err := l.ReadStored(nil, index)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		if err == nil && !bytes.Equal(got, want) {
			return nil, fmt.Errorf("block %d is wrong", index)
		}
		if err != nil {
			unreadable++
		}
	}
	if unreadable > 1 {
		return nil, fmt.Errorf("%d blocks cannot be read", unreadable)
	}
	for _, index := range s.dropped.ToArray() {
		if _, err := l.ReadStored(nil, index); !errors.Is(err, ErrDropped) {
			return nil, fmt.Errorf("dropped block %d: %w", index, err)
		}
	}
	for _, damage := range st.Health().Damage {
		found = append(found, damage.String())
	}
	err = l.Verify(context.Background(), func(d Damage) { found = append(found, d.String()) }, nil)
	if err != nil {
		return nil, err
	}
	return found, st.Close()
}

func TestRot(t *testing.T) {
	s := newSmallStore(t)
	if found, err := s.inspect(s.disk.Clone()); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	n := 1000
	if testing.Short() {
		n = 200
	}
	for _, f := range s.disk.Files() {
		name := filepath.Base(f.Path)
		if name == "reserve" {
			continue // it holds nothing
		}
		stride := max(1, int(f.Size)*8/n)
		count := 0
		for off := int64(rand.IntN(stride)); off < f.Size; off += 1 + int64(rand.IntN(2*stride)) {
			d := s.disk.Clone()
			if err := d.FlipByte(f.Path, off); err != nil {
				t.Fatal(err)
			}
			count++
			s.checkFlip(t, d, f.Path, off)
			if t.Failed() {
				return
			}
		}
		t.Logf("%s: %d of %d bytes", f.Path, count, f.Size)
	}
}

func (s *smallStore) checkFlip(t *testing.T, d *crashfs.FS, path string, off int64) {
	t.Helper()
	found, err := s.inspect(d)
	if err != nil {
		t.Errorf("byte %d of %s: %v", off, path, err)
		return
	}
	derived := strings.Contains(path, "/index/")
	named := false
	for _, line := range found {
		named = named || strings.Contains(line, path) || derived && strings.Contains(line, "index")
	}
	if !named && !s.isDead(path, off) {
		t.Errorf("byte %d of %s: not named in %q", off, path, found)
		return
	}
	if !derived {
		return
	}
	// What is derived was rebuilt, now or at the next open.
	if _, err := s.inspect(d); err != nil {
		t.Errorf("byte %d of %s, opened again: %v", off, path, err)
		return
	}
	if found, err := s.inspect(d); err != nil || len(found) > 0 {
		t.Errorf("byte %d of %s was not repaired: %q, %v", off, path, found, err)
	}
}

// TestRotWithoutIndex is TestRot for segments, when there is nothing but them.
func TestRotWithoutIndex(t *testing.T) {
	s := newSmallStore(t)
	if err := s.disk.RemoveAll("/drive/log-0000/index"); err != nil {
		t.Fatal(err)
	}
	n := 400
	if testing.Short() {
		n = 40
	}
	for _, f := range s.disk.Files() {
		if !strings.Contains(f.Path, "/seg/") {
			continue
		}
		for range n {
			off := rand.Int64N(f.Size)
			d := s.disk.Clone()
			if err := d.FlipByte(f.Path, off); err != nil {
				t.Fatal(err)
			}
			if found, err := s.inspect(d); err != nil {
				t.Fatalf("byte %d of %s: %v", off, f.Path, err)
			} else if !strings.Contains(strings.Join(found, " "), f.Path) && !s.isDead(f.Path, off) {
				t.Fatalf("byte %d of %s: not named in %q", off, f.Path, found)
			}
		}
	}
}
