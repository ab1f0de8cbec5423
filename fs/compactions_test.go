package fs

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// A database that is written to compacts by itself, without a clock.
func TestCompactionsNeedNoClock(t *testing.T) {
	c := newCompactions()
	o := &pebble.Options{Logger: quiet{}, DisableWAL: true, MemTableSize: 64 << 10, L0CompactionThreshold: 2}
	o.Experimental.CompactionScheduler = c
	db, err := pebble.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 1000)
	for i := range 4000 {
		var key [8]byte
		binary.BigEndian.PutUint64(key[:], uint64(i*7919%4000))
		if err := db.Set(key[:], value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	if n := db.Metrics().Compact.Count; n < 2 {
		t.Errorf("%d compactions", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if c.running != 0 {
		t.Errorf("%d compactions run for ever", c.running)
	}
	if ok, _ := c.TrySchedule(); ok {
		t.Error("a closed database compacts")
	}
}
