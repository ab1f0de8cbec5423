package log_test

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"

	"hearth/log"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// Single crashes that random ones have found, or should have.

func newCrashLog(t *testing.T) (*crashfs.FS, *log.Log) {
	t.Helper()
	d := crashfs.New(1)
	if err := d.MkdirAll(crashDir); err != nil {
		t.Fatal(err)
	}
	d.SyncAll()
	l, err := log.CreateLog(crashOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

func commitBlock(t *testing.T, l *log.Log, stored []byte) log.Head {
	t.Helper()
	_, head, err := l.Commit(stored, true)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func openCrashLog(t *testing.T, d *crashfs.FS) *log.Log {
	t.Helper()
	l, err := log.OpenLog(crashOptions(d))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestCrashInPadding has a write end within the last bytes of a checkpoint
// frame, which are padding: the next frame goes where frames go.
func TestCrashInPadding(t *testing.T) {
	for short := range int64(12) {
		d, l := newCrashLog(t)
		commitBlock(t, l, []byte("one"))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openCrashLog(t, d)
		d.SetPolicy(func(op crashfs.Op) crashfs.Fault {
			if op.Kind == crashfs.OpWriteAt {
				return crashfs.Partial(op.Len-short, syscall.EIO)
			}
			return crashfs.None
		})
		if _, _, err := l.Commit([]byte("two, which may be there"), true); !errors.Is(err, log.ErrPoisoned) {
			t.Fatal(err)
		}
		d = d.Kill()
		l = openCrashLog(t, d)
		for range 5 {
			head := commitBlock(t, l, []byte("three"))
			d = d.Kill()
			l = openCrashLog(t, d)
			if got := l.Head(); got.Size != head.Size || got.Root != head.Root {
				t.Fatalf("%d bytes short: %d entries were acknowledged, %d are there", short, head.Size, got.Size)
			}
			if _, err := l.ReadStored(nil, head.Size-1); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCrashAfterDropInDoubt has the process die when the record of a drop was
// renamed into place and not made durable. The next process sees it.
func TestCrashAfterDropInDoubt(t *testing.T) {
	d, l := newCrashLog(t)
	for range 10 { // four to a segment
		if _, err := l.Append(bytes.Repeat([]byte{7}, 60<<10)); err != nil {
			t.Fatal(err)
		}
	}
	commitBlock(t, l, []byte("commit"))
	set := roaring64.New()
	set.AddRange(0, 2)
	d.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpWriteFile), crashfs.FailDone(syscall.EIO)))
	if err := l.Drop(context.Background(), set); err == nil {
		t.Fatal("no error")
	}
	d = d.Kill()
	l = openCrashLog(t, d)
	freed, err := l.Reclaim(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		verifyClean(t, openCrashLog(t, d.Clone().Crash(seed)))
	}
	if l.Dropped().Contains(0) && freed == 0 {
		t.Error("no hole was punched")
	}
}

func verifyClean(t *testing.T, l *log.Log) {
	t.Helper()
	err := l.Verify(context.Background(), func(found log.Damage) { t.Errorf("damage: %v", found) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.Size() {
		if _, err := l.ReadStored(nil, i); err != nil && !errors.Is(err, log.ErrDropped) {
			t.Fatal(err)
		}
	}
}

// TestCrashAfterKeyInDoubt has the process die when a read key was renamed
// into place and not made durable. The next process seals with it.
func TestCrashAfterKeyInDoubt(t *testing.T) {
	d := crashfs.New(1)
	s, err := log.CreateStore(storeOptions(d, 1), "home")
	if err != nil {
		t.Fatal(err)
	}
	commitBlock(t, s.Own(), []byte("commit"))
	d.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpWriteFile), crashfs.FailDone(syscall.EIO)))
	if err := s.AddReadKey(1, [32]byte{1}); err == nil {
		t.Fatal("no error")
	}
	d = d.Kill()
	if s, err = log.OpenStore(storeOptions(d, 1)); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Keys().Seal(nil, seal.Commit, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	head := commitBlock(t, s.Own(), stored)
	if s, err = log.OpenStore(storeOptions(d.CrashWith(1, crashfs.DropAll), 1)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Own().ReadBlock(nil, head.Size-1, seal.Commit); err != nil || string(got) != "plain" {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestReadErrorsCutNothing has each read of a recovery fail once. The log may
// then refuse to open; what was acknowledged must be there at the next try.
func TestReadErrorsCutNothing(t *testing.T) {
	base, l := newCrashLog(t)
	var head log.Head
	for i := range 4 {
		if _, err := l.Append(make([]byte, 5000*i+1)); err != nil {
			t.Fatal(err)
		}
		head = commitBlock(t, l, []byte("commit"))
	}
	base.SyncAll()
	reads := crashfs.Kinds(crashfs.OpReadAt, crashfs.OpReadFile, crashfs.OpSize, crashfs.OpStat, crashfs.OpList, crashfs.OpOpen)
	for n := range 200 {
		d := base.Clone()
		met := false
		nth := crashfs.Nth(n, reads, crashfs.FailLost(syscall.EIO))
		d.SetPolicy(func(op crashfs.Op) crashfs.Fault {
			f := nth(op)
			met = met || f != crashfs.None
			return f
		})
		if l, err := log.OpenLog(crashOptions(d)); err == nil {
			if got := l.Head().Size; got != head.Size {
				t.Errorf("read %d: opened with %d of %d entries", n, got, head.Size)
			}
		}
		d = d.Kill()
		if got := openCrashLog(t, d).Head(); got.Size != head.Size || got.Root != head.Root {
			t.Errorf("read %d: %d of %d entries are left", n, got.Size, head.Size)
		}
		if !met {
			return
		}
	}
}

// TestIndexSyncFails has the index lose what was written to it. The log works
// on, and is whole when it is opened again.
func TestIndexSyncFails(t *testing.T) {
	for _, keep := range []crashfs.SyncFailure{crashfs.DropCache, crashfs.KeepCache} {
		for n := range 3 {
			d, l := newCrashLog(t)
			d.SetSyncFailure(keep)
			var heads []log.Head
			for range 300 {
				heads = append(heads, commitBlock(t, l, []byte("commit")))
			}
			d.SetPolicy(crashfs.Nth(n, func(op crashfs.Op) bool {
				return op.Kind == crashfs.OpDatasync && len(op.Path) > len(crashDir)+7 && op.Path[len(crashDir):][:7] == "/index/"
			}, crashfs.FailLost(syscall.EIO)))
			_ = l.Settle()
			for range 3 {
				for range 5 {
					heads = append(heads, commitBlock(t, l, []byte("commit")))
				}
				_ = l.Settle()
				for _, h := range heads {
					if root, err := l.Root(h.Size); err != nil || root != h.Root {
						t.Fatalf("sync %d: root of %d: %v", n, h.Size, err)
					}
				}
			}
			l = openCrashLog(t, d.CrashWith(1, crashfs.DropAll))
			if got := l.Head(); got.Size != uint64(len(heads)) {
				t.Fatalf("%d of %d", got.Size, len(heads))
			}
		}
	}
}
