package fs

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The data of files without a name does not outlive a process that was killed
// while it had some.
func TestKilledSpill(t *testing.T) {
	d := newTestDrive(t, Options{})
	f, _, err := d.Create(ctx, me, RootIno, "secret", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d.Ref(f.Ino(), 1) // as the kernel has
	if err := d.Unlink(ctx, me, RootIno, "secret"); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < 2*lowDirty; off += 1 << 20 {
		if _, err := f.WriteAt(ctx, random(1<<20, uint64(off)), off); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := d.sealSome(false); err != nil { // the sealer may have been faster
		t.Fatal(err)
	}
	path := filepath.Join(d.dir, "spill")
	left, err := os.ReadFile(path)
	if err != nil || len(left) < lowDirty {
		t.Fatalf("the data is not where this test looks for it: %d bytes, %v", len(left), err)
	}
	f.Close()
	d.shut()
	if err := os.WriteFile(path, left, 0o600); err != nil { // a killed process does not shut
		t.Fatal(err)
	}
	d.reopen()
	if _, err := os.Stat(path); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("the data is still there: %v", err)
	}
}

// While others ask for durability little may be unsealed. A large write to a
// file that has a little unsealed and no name waits for nobody.
func TestRoomForNameless(t *testing.T) {
	d := newTestDrive(t, Options{})
	f, _, err := d.Create(ctx, me, RootIno, "secret", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.Ref(f.Ino(), 1)
	if err := d.Unlink(ctx, me, RootIno, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, random(10_000, 1), 0); err != nil {
		t.Fatal(err)
	}
	d.own.Hurry()
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(ctx, random(maxHurried, 2), 10_000)
		written <- err
	}()
	select {
	case err := <-written:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the write waits, and nothing happens")
	}
}
