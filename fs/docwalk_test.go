package fs

import (
	"slices"
	"testing"
	"time"
)

// A folder may keep no history while the drive keeps its versions: those of
// its files are not offered then, for they cannot be read.
func TestVersionsWithoutContentsAreNotListed(t *testing.T) {
	for _, noIndex := range []bool{false, true} {
		k := newDesk(t, Options{NoIndex: noIndex})
		k.mkdir(me, "/scratch")
		k.must(k.Setxattr(ctx, me, k.ino("/scratch"), RetainAttr, []byte("none"), 0))
		for _, text := range []string{"one", "two", "three"} {
			for _, path := range []string{"/scratch/f", "/f"} {
				k.write(k.program(), path, string(random(100_000, uint64(len(text))))+text+path)
			}
			k.cut(time.Minute)
		}
		k.cut(time.Minute)
		u, err := k.BeginUpkeep(ctx)
		k.must(err)
		for i := range u.Versions() {
			u.Keep(i, Classes(1)<<slices.Index(u.Policies(), ""))
		}
		_, err = u.Drop(ctx, SweepOptions{Grace: -1})
		k.must(err)
		u.End()
		for path, want := range map[string]int{"/scratch/f": 1, "/f": 3} {
			if got := k.versionsOf(path); len(got) != want {
				t.Errorf("%s: %d versions, want %d", path, len(got), want)
			}
		}
	}
}
