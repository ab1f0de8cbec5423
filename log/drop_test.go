package log

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

func TestDropRefuses(t *testing.T) {
	l, _ := tinyLog(t)
	ctx := context.Background()
	control, err := l.AppendControl(&Dropped{Set: roaring64.BitmapOf(0)})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, l, "a")
	pending := mustAppend(t, l, "b")
	if err := l.Drop(ctx, roaring64.BitmapOf(control)); err == nil {
		t.Fatal("a control entry was dropped")
	}
	if err := l.Drop(ctx, roaring64.BitmapOf(pending)); err == nil {
		t.Fatal("a block that is not durable was dropped")
	}
	if !l.Dropped().IsEmpty() {
		t.Fatal("refused and done")
	}
	mustClose(t, l)
}

// rawContains reports whether any file of a machine holds b.
func rawContains(t *testing.T, d *crashfs.FS, b []byte) string {
	t.Helper()
	for _, f := range d.Files() {
		if strings.HasSuffix(f.Path, "reserve") {
			continue
		}
		data, err := d.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, b) {
			return f.Path
		}
	}
	return ""
}

// TestErase looks for what was dropped in the raw files.
func TestErase(t *testing.T) {
	l, d := tinyLog(t)
	gone, kept := make(map[uint64][]byte), make(map[uint64][]byte)
	set := roaring64.New()
	for i := range 400 {
		b := randomBlock(100 + i)
		index, err := l.Append(b)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			gone[index] = b
			set.Add(index)
		} else {
			kept[index] = b
		}
		if i%40 == 39 {
			mustCommit(t, l, "c")
		}
	}
	ctx := context.Background()
	if err := l.Drop(ctx, set); err != nil {
		t.Fatal(err)
	}
	// What is not committed makes Erase wait.
	mustAppend(t, l, "pending")
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := l.Erase(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	mustCommit(t, l, "c")
	if _, err := l.Erase(ctx); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for index, b := range kept {
			got, err := l.ReadStored(nil, index)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d: %v", index, err)
			}
		}
		for index, b := range gone {
			if _, err := l.ReadStored(nil, index); !errors.Is(err, ErrDropped) {
				t.Fatalf("block %d: %v", index, err)
			}
			if desc, err := l.Descriptor(index); err != nil || desc != Describe(b) {
				t.Fatalf("descriptor %d: %v", index, err)
			}
			if file := rawContains(t, d, b[:50]); file != "" {
				t.Fatalf("block %d is still in %s", index, file)
			}
		}
		err := l.Verify(ctx, func(d Damage) { t.Error(d) }, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	check()
	mustClose(t, l)
	if err := d.RemoveAll("/log/index"); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("/log/dropped"); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, tinyOptions(d))
	check() // the frames themselves tell
	mustClose(t, l)
}

// TestSpace drops every version of a file that is rewritten again and again.
func TestSpace(t *testing.T) {
	d := crashfs.New(1)
	l := mustCreate(t, testOptions(d, "/log"))
	n := 20_000
	if testing.Short() {
		n = 5000
	}
	data, commit := randomBlock(4352), randomBlock(500)
	for i := range n {
		if _, err := l.Append(data); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Commit(commit, i%50 == 49); err != nil {
			t.Fatal(err)
		}
	}
	set := roaring64.New()
	set.AddRange(0, l.Head().Size-1)
	ctx := context.Background()
	if err := l.Drop(ctx, set); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reclaim(ctx, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	per := d.Used() / int64(2*n)
	t.Logf("%d bytes for each dropped entry", per)
	if per > 130 {
		t.Fatalf("%d bytes for each dropped entry", per)
	}
	l = mustOpen(t, testOptions(d, "/log"))
	if _, err := l.ReadStored(nil, l.Size()-1); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestPunch frees long dead frames of segments that are mostly alive, on a
// real file system.
func TestPunch(t *testing.T) {
	o := testOptions(disk.OS{}, filepath.Join(t.TempDir(), "log"))
	o.Tiny, o.Inline = true, true
	l := mustCreate(t, o)
	set := roaring64.New()
	for i := range 60 {
		index := mustAppend(t, l, string(randomBlock(70_000)))
		if i%3 == 0 {
			set.Add(index)
		}
		if i%10 == 9 {
			mustCommit(t, l, "c")
		}
	}
	ctx := context.Background()
	if err := l.Drop(ctx, set); err != nil {
		t.Fatal(err)
	}
	before, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	freed, err := l.Reclaim(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	after, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if freed < before/4 || before-after != freed {
		t.Fatalf("freed %d of %d, now %d", freed, before, after)
	}
	if again, err := l.Reclaim(ctx, 0); err != nil || again != 0 {
		t.Fatal(again, err)
	}
	if err := l.Verify(ctx, func(d Damage) { t.Error(d) }, nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// On a full disk there is no room for the new file of a segment: what was
// dropped is overwritten where it stands.
func TestEraseOnFullDisk(t *testing.T) {
	l, d := tinyLog(t)
	gone, kept := make(map[uint64][]byte), make(map[uint64][]byte)
	set := roaring64.New()
	for i := range 60 {
		b := randomBlock(100 + i*700)
		index, err := l.Append(b)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			gone[index] = b
			set.Add(index)
		} else {
			kept[index] = b
		}
		if i%20 == 19 {
			mustCommit(t, l, "c")
		}
	}
	ctx := context.Background()
	if err := l.Drop(ctx, set); err != nil {
		t.Fatal(err)
	}
	d.SetCapacity(d.Used() + 8<<10)
	if _, err := l.Erase(ctx); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for index, b := range kept {
			if got, err := l.ReadStored(nil, index); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d: %v", index, err)
			}
		}
		for index, b := range gone {
			if _, err := l.ReadStored(nil, index); !errors.Is(err, ErrDropped) {
				t.Fatalf("block %d: %v", index, err)
			}
			for _, part := range [][]byte{b[:50], b[len(b)-50:]} {
				if file := rawContains(t, d, part); file != "" {
					t.Fatalf("block %d is still in %s", index, file)
				}
			}
		}
	}
	check()
	mustClose(t, l)
	l = mustOpen(t, tinyOptions(d))
	check()
	mustClose(t, l)
}
