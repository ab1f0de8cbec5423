package fs

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hearth/log"
	"hearth/log/disk"
)

// fullFS is a disk that may be full.
type fullFS struct {
	disk.OS
	full atomic.Bool
}

func (f *fullFS) Create(name string) (disk.File, error) { return f.file(f.OS.Create(name)) }
func (f *fullFS) Open(name string) (disk.File, error)   { return f.file(f.OS.Open(name)) }

func (f *fullFS) file(file disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return &fullFile{file, f}, nil
}

type fullFile struct {
	disk.File
	fs *fullFS
}

func (f *fullFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(p, off)
}

// Control entries whose version could not be saved are saved as soon as there
// is room: they count here already.
func TestAnnounceFull(t *testing.T) {
	f := &fullFS{}
	store, err := log.CreateStore(log.StoreOptions{FS: f, Dir: t.TempDir() + "/drive"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Create(ctx, Options{Store: store, NoIndex: true, Delay: 10 * time.Millisecond}, me)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		f.full.Store(false)
		if err := errors.Join(d.Close(ctx), store.Close()); err != nil {
			t.Error(err)
		}
	}()
	controls, err := store.LinkBoxes([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	f.full.Store(true)
	if err := d.Announce(ctx, controls); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("on a full disk: %v", err)
	}
	f.full.Store(false)
	own := store.Own()
	for end := time.Now().Add(20 * time.Second); own.Head().Size < own.Size() || own.Size() < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the head covers %d of %d entries", own.Head().Size, own.Size())
		}
	}
}
