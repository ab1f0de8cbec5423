package fs

import "testing"

// While a program asks for durability again and again, a file of which little
// is unsealed has room when a stream has none, and nobody has beyond twice that.
func TestLittleWritersHaveRoom(t *testing.T) {
	k := newDesk(t, Options{})
	const stream, journal = 100, 101
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.dirtyBytes
	defer func() { k.dirtyBytes = before }()
	for _, c := range []struct {
		dirty int64
		ino   Ino
		n     int
		full  bool
	}{
		{0, stream, maxHurried, false},
		{maxHurried, stream, littleDirty + 1, true},
		{maxHurried, journal, 4096, false},
		{2 * maxHurried, journal, 4096, true},
	} {
		k.own.Hurry()
		k.dirtyBytes = c.dirty
		if got := k.full(c.ino, c.n); got != c.full {
			t.Errorf("%d bytes to %d more of %d: full is %v", c.n, c.dirty, c.ino, got)
		}
	}
	f := &dirtyFile{ino: journal}
	f.write(0, make([]byte, littleDirty))
	k.dirty[journal] = f
	defer delete(k.dirty, journal)
	k.dirtyBytes = maxHurried
	if !k.full(journal, 4096) {
		t.Error("a file with much unsealed has room")
	}
}
