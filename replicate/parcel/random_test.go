package parcel

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Any tree arrives as it was.
func TestAnyTree(t *testing.T) {
	base := tempDir(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		src, dst := filepath.Join(base, strconv.Itoa(n), "src"), filepath.Join(base, strconv.Itoa(n), "dst")
		for _, d := range []string{src, dst} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				rt.Fatal(err)
			}
		}
		var paths []string
		for range rapid.IntRange(0, 3).Draw(rt, "tops") {
			name := anyName(rt)
			if _, err := os.Lstat(src + "/" + name); err == nil {
				continue
			}
			grow(rt, src+"/"+name, 0)
			paths = append(paths, src+"/"+name)
		}
		a, b := loopback(t)
		defer a.Close()
		defer b.Close()
		o := transfer(context.Background(), a, b, SendOptions{Paths: paths}, ReceiveOptions{Dir: dst})
		if o.sendErr != nil || o.getErr != nil {
			rt.Fatalf("send: %v; receive: %v", o.sendErr, o.getErr)
		}
		if len(o.got.Names) != len(paths) || len(o.sent.Skipped) > 0 {
			rt.Fatalf("%+v", o)
		}
		for _, p := range paths {
			same(t, p, dst+"/"+filepath.Base(p))
		}
		if k := names(t, dst); len(k) != len(paths) {
			rt.Fatalf("left %q", k)
		}
		os.RemoveAll(filepath.Dir(src))
	})
}

func anyName(rt *rapid.T) string {
	return rapid.OneOf(
		rapid.StringMatching(`[^/\x00]{1,20}`),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 255), func(b []byte) string {
			for i, c := range b {
				if c == 0 || c == '/' {
					b[i] = '_'
				}
			}
			return string(b)
		}),
		rapid.SampledFrom([]string{"a", "b", " ", "...", "-", "~", "*", "\n", "a.b.c"}),
	).Filter(func(s string) bool { return checkName(s) == nil }).Draw(rt, "name")
}

func grow(rt *rapid.T, path string, depth int) {
	if depth > 3 || rapid.IntRange(0, 2).Draw(rt, "kind") == 0 {
		size := rapid.OneOf(rapid.IntRange(0, 100), rapid.SampledFrom([]int{4096, smallFile - 1, smallFile, smallFile + 1, maxPayload, maxPayload + 1})).Draw(rt, "size")
		if err := os.WriteFile(path, random(uint64(size), size), 0o600); err != nil {
			rt.Fatal(err)
		}
	} else {
		if err := os.Mkdir(path, 0o700); err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(0, 5).Draw(rt, "children") {
			child := path + "/" + anyName(rt)
			if _, err := os.Lstat(child); err == nil {
				continue
			}
			if rapid.IntRange(0, 4).Draw(rt, "link") == 0 {
				target := rapid.SampledFrom([]string{".", "a", "a/b", "./x//y"}).Draw(rt, "target")
				if err := os.Symlink(target, child); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			grow(rt, child, depth+1)
		}
	}
	mode := rapid.IntRange(0, 0o777).Draw(rt, "mode")
	if os.Geteuid() != 0 { // the test itself has to look into it
		mode |= 0o700
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		rt.Fatal(err)
	}
	sec := rapid.Int64Range(-1<<31, 1<<33).Draw(rt, "seconds")
	if err := setTime(unix.AT_FDCWD, path, sec, uint32(rapid.IntRange(0, 1e9-1).Draw(rt, "nanoseconds"))); err != nil {
		rt.Fatal(err)
	}
}

// A manifest of a million files stays below 256 MiB, decoded from chunks as
// they come.
func TestManifestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("short runs are those of the race detector, whose memory is not the program's")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := &manifest{}
	if err := m.decode(folder("d"), 1<<21); err != nil {
		t.Fatal(err)
	}
	var chunk []byte
	delta := uint64(1)
	for i := range 1_000_000 {
		chunk = append(chunk, raw(kindFile, delta, "IMG_2026_"+strconv.Itoa(10_000_000+i)+".jpeg", 0o644, 1<<20, "")...)
		delta = 0
		if len(chunk) > maxPayload/2 || i == 999_999 {
			if err := m.decode(chunk, 1<<21); err != nil {
				t.Fatal(err)
			}
			chunk = chunk[:0]
		}
	}
	m.offer()
	runtime.ReadMemStats(&after)
	if n := after.Sys - before.Sys; n > 256<<20 {
		t.Errorf("%d MiB", n>>20)
	} else {
		t.Logf("%d MiB for %d entries", n>>20, len(m.entries))
	}
}
