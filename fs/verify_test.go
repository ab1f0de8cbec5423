package fs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth/log"
)

// damages runs a verification and returns what it found.
func (td *testDrive) damages() []Damage {
	td.t.Helper()
	var out []Damage
	if _, err := td.Verify(ctx, func(d Damage) { out = append(out, d) }, nil); err != nil {
		td.t.Fatal(err)
	}
	return out
}

func TestVerifyCounts(t *testing.T) {
	td := newTestDrive(t, Options{Delay: time.Hour})
	td.put(RootIno, "a", random(100_000, 1))
	var last int64
	sum, err := td.Verify(ctx, func(d Damage) { t.Errorf("damage: %+v", d) }, func(done, total int64) {
		if done < last || done > total {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || sum.Blocks != int64(td.own.Size()) || sum.Versions != 2 || sum.Bytes == 0 || sum.Dropped != 0 {
		t.Fatalf("%+v, %v", sum, err)
	}
}

// flip changes one byte of a stored block.
func (td *testDrive) flip(index uint64) {
	td.t.Helper()
	stored, err := td.own.ReadStored(nil, index)
	if err != nil {
		td.t.Fatal(err)
	}
	td.shut()
	found := false
	segments, err := filepath.Glob(filepath.Join(td.dir, "log-0000", "seg", "*"))
	if err != nil {
		td.t.Fatal(err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			td.t.Fatal(err)
		}
		if i := strings.Index(string(b), string(stored)); i >= 0 {
			b[i+len(stored)/2] ^= 1
			found = true
			if err := os.WriteFile(name, b, 0o600); err != nil {
				td.t.Fatal(err)
			}
		}
	}
	if !found {
		td.t.Fatalf("block %d is not in the segments", index)
	}
	td.reopen()
}

func TestVerifyNamesDamage(t *testing.T) {
	td := newTestDrive(t, Options{Delay: time.Hour})
	dir, err := td.Mkdir(ctx, me, RootIno, "dir", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	ino := td.put(dir.Ino, "file", random(100_000, 1))
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	exts, err := collect(td.live(), ino, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	old := td.Newest()
	td.flip(exts[0].ref.Index)
	got := td.damages()
	if len(got) != 1 || got[0].Path != "/dir/file" || got[0].Block != exts[0].ref.String() || got[0].Version != td.Newest() {
		t.Fatalf("%+v", got)
	}
	// A newer version without it: the damage is the old one's.
	td.put(dir.Ino, "file", random(100_000, 2))
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if got = td.damages(); len(got) != 1 || got[0].Version.Seq < old.Seq || got[0].Version == td.Newest() {
		t.Fatalf("%+v", got)
	}
}

func TestVerifyFindsBrokenPages(t *testing.T) {
	td := newTestDrive(t, Options{Delay: time.Hour})
	for i := range 300 {
		td.put(RootIno, strings.Repeat("n", 1+i%200)+string(rune('a'+i%26)), []byte("x"))
	}
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	var leaf log.Ref
	err := td.base.Walk(ctx, func(ref log.Ref, height uint8) (bool, error) { leaf = ref; return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	td.flip(leaf.Index)
	got := td.damages()
	if len(got) == 0 || got[0].Block != leaf.String() {
		t.Fatalf("%+v", got)
	}
}

// Records that do not fit together, with all blocks whole.
func TestVerifyFindsBrokenReferences(t *testing.T) {
	for name, spoil := range map[string]func(td *testDrive, dir, ino Ino){
		"entry without inode": func(td *testDrive, dir, ino Ino) { td.open.del(inodeKey(ino)) },
		"inode without entry": func(td *testDrive, dir, ino Ino) { td.open.del(direntKey(dir, "file")) },
		"entry without way back": func(td *testDrive, dir, ino Ino) {
			td.open.del(parentKey(ino, dir, "file"))
		},
		"wrong type": func(td *testDrive, dir, ino Ino) {
			td.open.put(direntKey(dir, "file"), dirent{ino, ModeDir, td.openVersion()}.encode())
		},
		"link count": func(td *testDrive, dir, ino Ino) {
			n, _ := td.live().inode(ino)
			n.nlink = 7
			td.putInode(ino, n)
		},
		"directory links": func(td *testDrive, dir, ino Ino) {
			n, _ := td.live().inode(dir)
			n.nlink = 3
			td.putInode(dir, n)
		},
		"size": func(td *testDrive, dir, ino Ino) {
			n, _ := td.live().inode(ino)
			n.size = 10
			td.putInode(ino, n)
		},
		"missing contents": func(td *testDrive, dir, ino Ino) { td.open.del(extentKey(ino, 0)) },
		"no such block": func(td *testDrive, dir, ino Ino) {
			td.open.put(extentKey(ino, 0), extent{ref: log.Ref{Index: 1 << 40}, length: 5000}.encode())
		},
		"counts": func(td *testDrive, dir, ino Ino) { td.inodes += 5 },
	} {
		t.Run(name, func(t *testing.T) {
			td := newTestDrive(t, Options{Delay: time.Hour})
			dir, err := td.Mkdir(ctx, me, RootIno, "dir", 0o755)
			if err != nil {
				t.Fatal(err)
			}
			ino := td.put(dir.Ino, "file", random(5000, 1))
			if err := td.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			if got := td.damages(); len(got) > 0 {
				t.Fatalf("before: %+v", got)
			}
			td.mu.Lock()
			spoil(td, dir.Ino, ino)
			td.mutated()
			td.mu.Unlock()
			if err := td.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			got := td.damages()
			if len(got) == 0 {
				t.Fatal("nothing was found")
			}
			if name != "counts" && got[0].Version.Seq == 0 {
				t.Fatalf("%+v", got)
			}
		})
	}
}
