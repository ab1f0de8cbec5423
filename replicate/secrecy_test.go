package replicate

import (
	"fmt"
	"slices"
	"testing"

	"hearth/log"
)

// lengths returns, sorted, the stored lengths that a holder sees of the entries
// [from, to).
func lengths(t *testing.T, held *log.Store, from, to uint64) []uint32 {
	t.Helper()
	var all []uint32
	for i := from; i < to; i++ {
		d, err := held.Logs()[0].Descriptor(i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d.Length)
	}
	slices.Sort(all)
	return all
}

// By the lengths of blocks a holder cannot tell apart two files of similar size,
// and cannot find a file that it knows, which is cut elsewhere in each drive.
func TestLengthsTellNothing(t *testing.T) {
	type drive struct {
		store, held *log.Store
		save        func(name string, data []byte) []uint32
	}
	begin := func(name string) drive {
		a, h := newDevice(t, "a"+name), newDevice(t, "h"+name)
		store, d := a.author()
		write(t, d, "first", []byte("x"))
		link := a.share(store, d)
		held := holdWhole(t, a, h, store, link)
		return drive{store, held, func(name string, data []byte) []uint32 {
			t.Helper()
			before := store.Own().Head().Size
			write(t, d, name, data)
			awaitWhole(t, held, store)
			return lengths(t, held, before, store.Own().Head().Size-1)
		}}
	}
	one, two := begin("1"), begin("2")
	// Sizes within one step. The commit, which is the last entry of each save,
	// has a length that depends on the changes before and on their times, and not
	// on the size of a file.
	for i, c := range [][2]int{{9, 10}, {304, 310}, {4096, 4200}, {9000, 9100}, {20_000, 20_300}, {31_000, 31_500}} {
		a := one.save(fmt.Sprintf("a%04d", i), noise(uint64(i), c[0]))
		b := two.save(fmt.Sprintf("b%04d", i), noise(uint64(100+i), c[1]))
		if !slices.Equal(a, b) {
			t.Errorf("files of %d and %d bytes are stored as %v and %v", c[0], c[1], a, b)
		}
	}
	// Sizes of several steps are told apart, so that this test can fail.
	if a, b := one.save("a", noise(1, 20_000)), two.save("b", noise(2, 30_000)); slices.Equal(a, b) {
		t.Errorf("files of 20,000 and 30,000 bytes are stored as %v", a)
	}
	known := noise(7, 3<<20)
	a, b := one.save("known", known), two.save("known", known)
	if slices.Equal(a, b) {
		t.Errorf("a known file has the same lengths in two drives: %v", a)
	}
	// Each length is a step of a few, not a size.
	steps := map[uint32]bool{}
	for _, n := range append(a, b...) {
		steps[n] = true
	}
	if len(steps) > 60 {
		t.Errorf("%d different lengths", len(steps))
	}
}
