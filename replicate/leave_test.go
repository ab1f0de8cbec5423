package replicate

import (
	"context"
	"errors"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs"
)

// Who leaves a drive learns what nobody else has, pages and commits included; of
// two that leave at once, the second learns that it is the last.
func TestLeave(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	a, b, c := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c")
	store, drive := a.author()
	write(t, drive, "f", noise(1, 3<<20))
	link := a.share(store, drive)
	first, second := b.join(link, true), c.join(link, true)
	everything(t, first, store)
	everything(t, second, store)
	size := store.Own().Head().Size
	everyBlock := fs.Blocks{0: roaring64.New()}
	everyBlock[0].AddRange(0, size)

	told := uint64(0)
	l, stay, err := b.node.Leave(ctx, first, func(done, total uint64) { told = done })
	if err != nil || l.Here != size || l.Only != 0 || l.Asked != 1 || told != size {
		t.Fatalf("%+v of %d, told of %d: %v", l, size, told, err)
	}
	// It says that it has nothing until it stays.
	held := func(d *device, has uint64) {
		t.Helper()
		all := a.node.Holders(ctx, store, everyBlock)
		for _, h := range all {
			if h.Key == d.node.Key() && h.Has.Count() != has {
				t.Fatalf("it says that it has %d blocks", h.Has.Count())
			}
		}
		if len(all) != 2 {
			t.Fatalf("%d devices share it", len(all))
		}
	}
	held(b, 0)
	again, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := b.node.Leave(again, first, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("left twice at once: %v", err)
	}
	stay()
	held(b, size)

	// The author goes; the two have each other.
	if err := c.node.Connect(ctx, b.addr(), nil); err != nil {
		t.Fatal(err)
	}
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	for d, other := range map[*device]*device{b: c, c: b} {
		await(t, "they have each other", func() bool {
			all := d.node.sharing(store.DriveID())
			return len(all) == 1 && all[0].conn.Peer() == other.node.Key()
		})
	}
	l, stay, err = b.node.Leave(ctx, first, nil)
	if err != nil || l.Here != size || l.Only != 0 {
		t.Fatalf("the first to leave: %+v, %v", l, err)
	}
	l, also, err := c.node.Leave(ctx, second, nil)
	if err != nil || l.Only != size || l.Asked != 1 {
		t.Fatalf("the last to leave: %+v, %v", l, err)
	}
	also()
	b.node.Remove(store.DriveID())
	stay()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l, stay, err = c.node.Leave(ctx, second, nil)
	if err != nil || l.Here != size || l.Only != size {
		t.Fatalf("the one that is left: %+v, %v", l, err)
	}
	stay()
}
