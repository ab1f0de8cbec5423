package log

import (
	"context"
	"errors"
	"testing"

	"hearth/log/disk/crashfs"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// checkExport reads an export as an auditor would, with nothing but the log's
// key.
func checkExport(t *testing.T, d *crashfs.FS, dir string, v *Verifier) Head {
	t.Helper()
	text, err := d.ReadFile(dir + "/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	head, err := v.Verify(text)
	if err != nil {
		t.Fatal(err)
	}
	var e edge
	for n := uint64(0); n*tileWidth < head.Size; n++ {
		width := int(min(head.Size-n*tileWidth, tileWidth))
		bundle, err := d.ReadFile(dir + "/" + EntriesPath(n, width))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := ParseBundle(bundle, width)
		if err != nil {
			t.Fatal(err)
		}
		tile, err := d.ReadFile(dir + "/" + TilePath(0, n, width))
		if err != nil {
			t.Fatal(err)
		}
		for i, entry := range entries {
			leaf := LeafHash(entry)
			if leaf != [hashSize]byte(tile[i*hashSize:]) {
				t.Fatalf("entry %d is not that of the tile", i)
			}
			e.append(leaf)
		}
	}
	if e.root() != head.Root {
		t.Fatal("the entries have another root")
	}
	for level := 1; head.Size>>(tileHeight*level) > 0; level++ {
		count := head.Size >> (tileHeight * level)
		for n := uint64(0); n*tileWidth < count; n++ {
			width := int(min(count-n*tileWidth, tileWidth))
			if b, err := d.ReadFile(dir + "/" + TilePath(level, n, width)); err != nil || len(b) != width*hashSize {
				t.Fatal(len(b), err)
			}
		}
	}
	return head
}

func TestExport(t *testing.T) {
	l, d := tinyLog(t)
	ctx := context.Background()
	if err := l.Export(ctx, "/export"); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	for round := range 4 {
		for range 200 {
			mustAppend(t, l, "x")
		}
		if _, err := l.AppendControl(&Dropped{Set: roaring64.BitmapOf(1)}); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, l, "c")
		if round == 1 {
			set := roaring64.New()
			set.AddRange(0, 150)
			if err := l.Drop(ctx, set); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Erase(ctx); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, l, "not in it")
		if err := l.Export(ctx, "/export"); err != nil {
			t.Fatal(err)
		}
		if head := checkExport(t, d, "/export", l.Verifier()); head.Size != l.Head().Size {
			t.Fatalf("exported %d of %d", head.Size, l.Head().Size)
		}
	}
	full := "/export/" + TilePath(0, 1, tileWidth)
	before, err := d.Stat(full)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Export(ctx, "/export"); err != nil {
		t.Fatal(err)
	}
	if after, err := d.Stat(full); err != nil || after.ModTime() != before.ModTime() {
		t.Fatal("a full tile was written again", err)
	}
	mustClose(t, l)

	o := tinyOptions(d)
	o.Dir, o.Signer = "/other", NewSigner(testSeed(2))
	other := mustCreate(t, o)
	mustCommit(t, other, "c")
	if err := other.Export(ctx, "/export"); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
	mustClose(t, other)

	o = tinyOptions(d)
	o.Dir = "/fork"
	fork := mustCreate(t, o)
	mustCommit(t, fork, "c")
	if err := fork.Export(ctx, "/export"); !errors.Is(err, ErrFork) {
		t.Fatal(err)
	}
	mustClose(t, fork)
}
