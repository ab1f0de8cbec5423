package mount

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/fs"
	"hearth/log"
)

// copying gets what a replica lacks from the log itself.
type copying struct {
	from *log.Log

	mu    sync.Mutex
	asked map[uint64]bool
}

func (c *copying) Fetch(l *log.Log, indexes []uint64) error {
	for _, i := range indexes {
		c.mu.Lock()
		c.asked[i] = true
		c.mu.Unlock()
		tiles, err := l.Lacking(nil, i)
		if err != nil {
			return err
		}
		for _, t := range tiles {
			data, err := c.from.Tile(t, 256)
			if err != nil {
				return err
			}
			if err := l.AddTile(t, data); err != nil {
				return err
			}
		}
		b, err := c.from.ReadStored(nil, i)
		if err != nil {
			return err
		}
		add := l.AddBlock
		if c.from.IsControl(i) {
			add = l.AddControlEntry
		}
		if err := add(i, b); err != nil {
			return err
		}
	}
	return nil
}

// follow returns a drive that follows another one on this device.
func follow(t *testing.T, d *fs.Drive) (*fs.Drive, *copying) {
	t.Helper()
	ctx := context.Background()
	store := d.Store()
	seed := [32]byte{1}
	boxes, err := store.LinkBoxes(seed)
	must(t, err)
	must(t, d.Announce(ctx, boxes))
	genesis := store.Genesis()
	joined, err := log.JoinStore(log.StoreOptions{Dir: filepath.Join(t.TempDir(), "joined")},
		log.Joined{Genesis: &genesis, Name: "test", Hold: store.HoldSecret(), Link: &seed})
	must(t, err)
	source := &copying{from: store.Own(), asked: map[uint64]bool{}}
	joined.SetSource(source)
	l, err := joined.Replica(0)
	must(t, err)
	proof, err := store.Own().ProveHead(0)
	must(t, err)
	_, err = joined.Advance(l, proof)
	must(t, err)
	for _, i := range store.Own().Controls(0, 100) {
		must(t, source.Fetch(l, []uint64{i}))
		must(t, joined.TakeControl(l, i))
	}
	f, err := fs.Open(ctx, fs.Options{Store: joined})
	must(t, err)
	t.Cleanup(func() {
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := joined.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, source
}

// What is elsewhere shows in st_blocks alone: sizes are true, nothing of it is a
// hole, and looking at it gets nothing here. A copy by a program that knows of
// sparse files is whole.
func TestContentsElsewhere(t *testing.T) {
	ctx := context.Background()
	author := newTestDrive(t)
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3<<20+123)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for name, b := range map[string][]byte{"f": data, "small": []byte("small"), "empty": nil} {
		f, _, err := author.Create(ctx, fs.Caller{}, fs.RootIno, name, 0o644)
		must(t, err)
		_, err = f.WriteAt(ctx, b, 0)
		must(t, err)
		f.Close()
	}
	sparse, _, err := author.Create(ctx, fs.Caller{}, fs.RootIno, "sparse", 0o644)
	must(t, err)
	_, err = sparse.WriteAt(ctx, data[:1<<20], 5<<20)
	must(t, err)
	sparse.Close()
	must(t, author.Sync(ctx))
	drive, source := follow(t, author)
	m := mountDrive(t, drive, Options{})
	path := func(name string) string { return filepath.Join(m.Dir(), name) }
	blocks := func(name string) int64 {
		t.Helper()
		a, err := drive.Current().Lookup(ctx, fs.RootIno, name)
		must(t, err)
		out := int64(a.Blocks)
		// The kernel says the same as soon as it asks.
		waitFor(t, "st_blocks of "+name, func() bool {
			var st unix.Stat_t
			must(t, unix.Stat(path(name), &st))
			return st.Blocks == out && st.Size == int64(a.Size)
		})
		return out
	}
	for name, want := range map[string]int64{"f": 1, "small": 1, "sparse": 1, "empty": 0} {
		if got := blocks(name); got != want {
			t.Errorf("st_blocks of %s is %d before anything was read", name, got)
		}
	}
	f, err := os.Open(path("f"))
	must(t, err)
	defer f.Close()
	seek := func(off int64, whence int, want int64) {
		t.Helper()
		if got, err := unix.Seek(int(f.Fd()), off, whence); err != nil || got != want {
			t.Errorf("seek %d from %d: %d, %v; want %d", whence, off, got, err, want)
		}
	}
	size := int64(len(data))
	whole := func() {
		t.Helper()
		seek(0, unix.SEEK_HOLE, size)
		seek(1<<20, unix.SEEK_HOLE, size)
		seek(0, unix.SEEK_DATA, 0)
		seek(2<<20+7, unix.SEEK_DATA, 2<<20+7)
	}
	whole()
	names, err := os.ReadDir(m.Dir())
	must(t, err)
	if len(names) != 4 {
		t.Errorf("%d names", len(names))
	}
	contents, err := drive.Current().Contents(ctx, fs.RootIno)
	must(t, err)
	for it := contents.Blocks(false)[0].Iterator(); it.HasNext(); {
		if i := it.Next(); source.asked[i] {
			t.Errorf("block %d was fetched, and nobody has read anything", i)
		}
	}
	if contents.Local() != 0 || contents.Bytes != uint64(size)+5+1<<20 || contents.Size != uint64(size)+5+6<<20 {
		t.Errorf("%d bytes here of %d, sizes %d", contents.Local(), contents.Bytes, contents.Size)
	}
	// A part is read, and counts. (The kernel reads ahead.)
	_, err = f.ReadAt(make([]byte, 100), 1<<20)
	must(t, err)
	if got := blocks("f"); got < 64 || got >= size/512 {
		t.Errorf("st_blocks is %d of %d after a part was read", got, size/512)
	}
	whole()
	// cp looks at st_blocks, and then for holes.
	for _, how := range []string{"auto", "always"} {
		to := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.Command("cp", "--sparse="+how, path("f"), to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got, err := os.ReadFile(to)
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Fatalf("cp --sparse=%s made another file", how)
		}
		// Once more, with nothing here.
		_, err = drive.Store().Logs()[0].Evict(ctx, contents.Blocks(false)[0])
		must(t, err)
		contents.Evicted()
		must(t, m.Settle(ctx))
		if got := blocks("f"); got != 1 {
			t.Errorf("st_blocks is %d after everything was evicted", got)
		}
		whole()
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatal("other contents")
	}
	if got := blocks("f"); got != (size+511)/512 {
		t.Errorf("st_blocks is %d of %d", got, (size+511)/512)
	}
	if sp, err := os.ReadFile(path("sparse")); err != nil || !bytes.Equal(sp[5<<20:], data[:1<<20]) || blocks("sparse") != 2048 {
		t.Errorf("a sparse file: %d bytes, %v, %d blocks", len(sp), err, blocks("sparse"))
	}
}
