package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestIndexRot flips bytes in every file of the local index, a few at a time:
// the drive opens, every answer is what it was, deduplication believes nothing,
// and what the index had is there again. Package log does the same to the store
// itself, byte by byte.
func TestIndexRot(t *testing.T) {
	k := newDesk(t, Options{})
	big := random(300_000, 1)
	for i := range 40 {
		k.write(k.program(), fmt.Sprintf("/f%d", i%8), fmt.Sprint(i))
		k.cut(time.Minute)
	}
	ino := k.put(RootIno, "big", big)
	k.must(k.Sync(ctx))
	answers := func() string {
		var out string
		for _, path := range []string{"", "/f1", "/f7", "/big"} {
			out += fmt.Sprintln(path, k.changesOf(ChangeQuery{Path: path}))
		}
		return out + fmt.Sprint(k.versionsOf("/f1"), k.versionsOf("/f7"))
	}
	want := answers()
	k.shut()
	files, err := filepath.Glob(filepath.Join(k.dir, "index", "*"))
	k.must(err)
	if len(files) == 0 {
		t.Fatal("there is no index")
	}
	rounds := 6
	if testing.Short() {
		rounds = 1
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if os.IsNotExist(err) || err == nil && info.Size() == 0 {
			continue // replaced by an earlier round, or nothing to flip
		}
		k.must(err)
		for range rounds {
			b, err := os.ReadFile(name)
			if os.IsNotExist(err) {
				break // the index was made again, under other names
			}
			k.must(err)
			at := rand.IntN(len(b))
			b[at] ^= 0x40
			k.must(os.WriteFile(name, b, 0o600))
			k.reopen()
			if got := answers(); got != want {
				t.Fatalf("byte %d of %s:\n%s\nwant\n%s", at, filepath.Base(name), got, want)
			}
			// Written again, it is found in the log or appended, never mistaken.
			k.put(RootIno, "big", big)
			k.must(k.Sync(ctx))
			f, err := k.Open(ctx, me, ino, false)
			k.must(err)
			got := make([]byte, len(big))
			if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, big) {
				t.Fatalf("byte %d of %s: reading back: %v", at, filepath.Base(name), err)
			}
			f.Close()
			if found := k.damages(); len(found) > 0 {
				t.Fatalf("byte %d of %s: %v", at, filepath.Base(name), found)
			}
			want = answers() // with the new save
			k.shut()
		}
	}
	k.reopen()
	if !k.index.await(ctx, k.Newest().Seq) {
		t.Fatalf("the index is still out of use: %v", k.index.broken)
	}
	if got := answers(); got != want {
		t.Fatalf("in the end:\n%s\nwant\n%s", got, want)
	}
}

// TestIndexRotInCompaction damages all tables at once and has Pebble meet that
// in the background, where it would end the process: the index is out of use,
// it lets go of its directory, and the next opening makes it again.
func TestIndexRotInCompaction(t *testing.T) {
	k := newDesk(t, Options{})
	for i := range 3 { // a table each
		for j := range 300 {
			k.write(k.program(), fmt.Sprintf("/f%d", j%20), fmt.Sprint(i, j))
			k.cut(time.Minute)
		}
		k.must(k.Sync(ctx))
		k.reopen()
	}
	want := fmt.Sprint(k.versionsOf("/f1"))
	k.shut()
	tables, err := filepath.Glob(filepath.Join(k.dir, "index", "*.sst"))
	k.must(err)
	if len(tables) < 2 {
		t.Fatalf("%d tables: nothing to compact", len(tables))
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		k.must(err)
		b[10] ^= 0x40 // in the first block of data
		k.must(os.WriteFile(name, b, 0o600))
	}
	k.reopen()
	<-k.index.opened
	k.index.dbMu.RLock()
	db := k.index.db
	k.index.dbMu.RUnlock()
	if db != nil { // opening it did not meet the damage
		if err := db.Compact(ctx, []byte{0}, []byte{0xff}, false); err == nil {
			t.Fatal("the damage was compacted away")
		}
		<-k.index.done // it has been closed
	}
	k.reopen()
	if !k.index.await(ctx, k.Newest().Seq) {
		t.Fatalf("the index is still out of use: %v", k.index.broken)
	}
	if got := fmt.Sprint(k.versionsOf("/f1")); got != want {
		t.Fatalf("%s\nwant\n%s", got, want)
	}
}
