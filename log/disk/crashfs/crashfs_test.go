package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"
	"hearth/log/disk/disktest"
)

func TestConformance(t *testing.T) {
	disktest.Run(t, func() disk.FS {
		c := crashfs.New(1)
		if err := c.MkdirAll("/tmp/x"); err != nil {
			t.Fatal(err)
		}
		return c
	}, "/tmp/x")
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file makes a durable file with the given contents.
func file(t testing.TB, c *crashfs.FS, name string, data []byte) disk.File {
	t.Helper()
	f, err := c.Create(name)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Datasync())
	must(t, c.SyncDir("/"))
	return f
}

func read(t testing.TB, c *crashfs.FS, name string) []byte {
	t.Helper()
	data, err := c.ReadFile(name)
	must(t, err)
	return data
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// outcomes crashes copies of c with many seeds and counts what look says.
func outcomes(c *crashfs.FS, n int, look func(*crashfs.FS) string) map[string]int {
	seen := make(map[string]int)
	for seed := range n {
		seen[look(c.Clone().Crash(uint64(seed)))]++
	}
	return seen
}

func TestSyncedIsNeverLost(t *testing.T) {
	crashfs.Explore(t, 300, 1, func(r *crashfs.Run) error {
		// A file of numbered sectors; the model knows which values each may
		// have: the last synced one or any written since.
		const sectors = 64
		if err := r.FS.MkdirAll("/d"); err != nil {
			return err
		}
		if err := r.FS.SyncDir("/"); err != nil {
			return err
		}
		f, err := r.FS.Create("/d/f")
		if err != nil {
			return err
		}
		if err := f.Truncate(sectors * crashfs.SectorSize); err != nil {
			return err
		}
		if err := errors.Join(f.Datasync(), r.FS.SyncDir("/d")); err != nil {
			return err
		}
		var may [sectors]map[byte]bool
		for i := range may {
			may[i] = map[byte]bool{0: true}
		}
		value := byte(0)
		for range 4 {
			r.Arm(crashfs.Plan{Crash: 60})
			for {
				value++
				first := r.Rand.IntN(sectors)
				n := 1 + r.Rand.IntN(sectors-first)
				off, length := int64(first*crashfs.SectorSize), n*crashfs.SectorSize
				for i := first; i < first+n; i++ {
					may[i][value] = true
				}
				if _, err = f.WriteAt(fill(value, length), off); err != nil {
					break
				}
				if r.Rand.IntN(3) > 0 {
					continue
				}
				if err = f.Datasync(); err != nil {
					break
				}
				now := make([]byte, sectors*crashfs.SectorSize)
				if _, err = f.ReadAt(now, 0); err != nil {
					break
				}
				for i := range may {
					may[i] = map[byte]bool{now[i*crashfs.SectorSize]: true}
				}
			}
			if !errors.Is(err, crashfs.ErrCrashed) {
				return err
			}
			r.PowerLoss()
			data, err := r.FS.ReadFile("/d/f")
			if err != nil {
				return err
			}
			if len(data) != sectors*crashfs.SectorSize {
				return fmt.Errorf("%d bytes", len(data))
			}
			for i := range may {
				s := data[i*crashfs.SectorSize : (i+1)*crashfs.SectorSize]
				if !bytes.Equal(s, fill(s[0], len(s))) {
					return fmt.Errorf("sector %d is a mixture", i)
				}
				if !may[i][s[0]] {
					return fmt.Errorf("sector %d holds %d, may hold %v", i, s[0], may[i])
				}
				may[i] = map[byte]bool{s[0]: true}
			}
			if f, err = r.FS.Open("/d/f"); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestUnsyncedIsLostTornAndReordered(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", fill('.', 4096))
	for i, b := range []byte{'a', 'b'} {
		_, err := f.WriteAt(fill(b, 1024), int64(1024*i))
		must(t, err)
	}
	_, err := f.WriteAt(fill('c', 512), 0)
	must(t, err)
	seen := outcomes(c, 2000, func(c *crashfs.FS) string {
		data := read(t, c, "/f")
		var s []byte
		for i := 0; i < 2048; i += 512 {
			s = append(s, data[i])
		}
		if !bytes.Equal(data[2048:], fill('.', 2048)) {
			t.Fatal("what was synced changed")
		}
		return string(s)
	})
	t.Log(seen)
	for _, want := range []string{"....", "cabb", "aabb", "aa..", "..bb", "c...", "cabb", "a...", ".a..", "...b", "caa."[:2] + "b."} {
		if seen[want] == 0 {
			t.Errorf("never %q", want)
		}
	}
	if len(seen) != 3*2*2*2 {
		t.Errorf("%d outcomes of %d", len(seen), 24)
	}
}

func TestSectorsAreStatesOfTheCache(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", fill('.', 512))
	_, err := f.WriteAt([]byte("aa"), 0)
	must(t, err)
	_, err = f.WriteAt([]byte("bb"), 4)
	must(t, err)
	seen := outcomes(c, 200, func(c *crashfs.FS) string { return string(read(t, c, "/f")[:6]) })
	if len(seen) != 3 || seen["......"] == 0 || seen["aa...."] == 0 || seen["aa..bb"] == 0 {
		t.Error(seen)
	}
}

func TestSizesAndSpace(t *testing.T) {
	sizes := func(change func(f disk.File)) map[string]int {
		c := crashfs.New(1)
		f := file(t, c, "/f", fill('x', 8192))
		change(f)
		return outcomes(c, 500, func(c *crashfs.FS) string {
			data := read(t, c, "/f")
			return fmt.Sprint(len(data), c.Used())
		})
	}
	for _, test := range []struct {
		name   string
		change func(f disk.File)
		want   []string
	}{
		{"extend", func(f disk.File) { must(t, f.Truncate(9000)) }, []string{"8192 8192", "9000 8192"}},
		{"truncate", func(f disk.File) { must(t, f.Truncate(100)) }, []string{"8192 8192", "100 4096"}},
		{"there and back", func(f disk.File) { must(t, f.Truncate(0)); must(t, f.Truncate(8192)) },
			[]string{"8192 8192", "0 0", "8192 0"}},
		{"allocate", func(f disk.File) { must(t, f.Allocate(8192, 8192)) }, []string{"8192 8192", "16384 16384"}},
		{"punch", func(f disk.File) { must(t, f.PunchHole(0, 8192)) }, []string{"8192 8192", "8192 4096", "8192 0"}},
		{"append", func(f disk.File) {
			_, err := f.WriteAt(fill('y', 1024), 8192)
			must(t, err)
		}, []string{"8192 8192", "9216 12288", "8704 12288", "9216 8192"}},
	} {
		seen := sizes(test.change)
		for _, want := range test.want {
			if seen[want] == 0 {
				t.Errorf("%s: never %q: %v", test.name, want, seen)
			}
		}
	}
}

func TestAppendMayGrowWithoutItsData(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", fill('x', 512))
	_, err := f.WriteAt(fill('y', 512), 512)
	must(t, err)
	seen := outcomes(c, 500, func(c *crashfs.FS) string {
		data := read(t, c, "/f")
		return fmt.Sprintf("%d %q", len(data), data[len(data)-1])
	})
	for _, want := range []string{`512 'x'`, `1024 'y'`, `1024 '\x00'`} {
		if seen[want] == 0 {
			t.Errorf("never %s: %v", want, seen)
		}
	}
	if len(seen) != 3 {
		t.Error(seen)
	}
}

func TestNamesNeedSyncDir(t *testing.T) {
	c := crashfs.New(1)
	must(t, c.MkdirAll("/d"))
	c.SyncAll()
	f, err := c.Create("/d/a")
	must(t, err)
	_, err = f.WriteAt([]byte("a"), 0)
	must(t, err)
	must(t, f.Datasync())
	must(t, c.WriteFile("/d/w", []byte("w")))
	must(t, c.Rename("/d/a", "/d/b"))
	g, err := c.Create("/d/c")
	must(t, err)
	must(t, g.Close())
	look := func(c *crashfs.FS) string {
		names, err := c.List("/d")
		must(t, err)
		for _, name := range names {
			if name == "a" || name == "b" {
				if got := read(t, c, "/d/"+name); string(got) != "a" {
					t.Fatalf("synced contents became %q", got)
				}
			}
		}
		return fmt.Sprint(names)
	}
	seen := outcomes(c, 500, look)
	for _, want := range []string{"[w]", "[a w]", "[b w]", "[b c w]", "[c w]", "[a c w]"} {
		if seen[want] == 0 {
			t.Errorf("never %s: %v", want, seen)
		}
	}
	if len(seen) != 6 {
		t.Error(seen)
	}
	must(t, c.SyncDir("/d"))
	if seen := outcomes(c, 100, look); len(seen) != 1 || seen["[b c w]"] == 0 {
		t.Errorf("after SyncDir: %v", seen)
	}
	must(t, c.Remove("/d/b"))
	must(t, c.RemoveAll("/d/c"))
	if seen := outcomes(c, 500, look); len(seen) != 4 {
		t.Errorf("after removals: %v", seen)
	}
}

func TestParentsNeedSyncDirToo(t *testing.T) {
	c := crashfs.New(1)
	must(t, c.MkdirAll("/a/b"))
	must(t, c.WriteFile("/a/b/f", nil))
	must(t, c.SyncDir("/a/b"))
	must(t, c.SyncDir("/a"))
	look := func(c *crashfs.FS) string { return c.Dump() }
	if seen := outcomes(c, 100, look); len(seen) != 2 {
		t.Error(seen)
	}
	must(t, c.SyncDir("/"))
	if seen := outcomes(c, 100, look); len(seen) != 1 {
		t.Error(seen)
	}
}

func TestRenameAcrossDirectories(t *testing.T) {
	c := crashfs.New(1)
	must(t, c.MkdirAll("/x/d"))
	must(t, c.MkdirAll("/y"))
	must(t, c.WriteFile("/x/f", []byte("f")))
	must(t, c.WriteFile("/x/d/g", []byte("g")))
	c.SyncAll()
	must(t, c.Rename("/x/f", "/y/f"))
	must(t, c.Rename("/x/d", "/y/d"))
	look := func(c *crashfs.FS) string { return fmt.Sprint(len(c.Files())) }
	if seen := outcomes(c, 200, look); len(seen) != 1 || seen["2"] == 0 {
		t.Errorf("a rename lost or doubled a file: %v", seen)
	}
	must(t, c.SyncDir("/x"))
	if seen := outcomes(c, 100, (*crashfs.FS).Dump); len(seen) != 1 {
		t.Error(seen)
	}
}

func TestOldHandlesDie(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(*crashfs.FS) *crashfs.FS
		want error
	}{
		{"crash", func(c *crashfs.FS) *crashfs.FS { return c.Crash(1) }, crashfs.ErrCrashed},
		{"kill", (*crashfs.FS).Kill, crashfs.ErrKilled},
	} {
		c := crashfs.New(1)
		f := file(t, c, "/f", []byte("x"))
		d := end.end(c)
		before := d.Dump()
		_, werr := f.WriteAt([]byte("y"), 0)
		_, rerr := f.ReadAt(make([]byte, 1), 0)
		_, cerr := c.Create("/g")
		for _, err := range []error{werr, rerr, cerr, f.Datasync(), f.Close(), c.Remove("/f"), c.SyncDir("/"), c.WriteFile("/h", nil)} {
			if !errors.Is(err, end.want) {
				t.Errorf("%s: %v", end.name, err)
			}
		}
		if d.Dump() != before {
			t.Errorf("%s: an old handle changed the new machine", end.name)
		}
	}
}

func TestKillKeepsTheCache(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", []byte("old"))
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	g, err := c.Create("/g")
	must(t, err)
	_, err = g.WriteAt(fill('g', 5000), 0)
	must(t, err)
	must(t, c.Remove("/g"))
	if c.Used() != 3*4096 {
		t.Fatalf("%d used with an orphan open", c.Used())
	}
	d := c.Kill()
	if d.Used() != 4096 {
		t.Errorf("%d used after the orphan's process died", d.Used())
	}
	if got := read(t, d, "/f"); string(got) != "new" {
		t.Errorf("%q", got)
	}
	// It is still not durable.
	seen := outcomes(d, 100, func(c *crashfs.FS) string { return string(read(t, c, "/f")) })
	if seen["old"] == 0 || seen["new"] == 0 {
		t.Error(seen)
	}
}

func TestCapacity(t *testing.T) {
	c := crashfs.New(1)
	c.SetCapacity(10 * 4096)
	free := func(want int64) {
		t.Helper()
		got, total, err := c.Free("/")
		must(t, err)
		if got != want*4096 || total != 10*4096 {
			t.Fatalf("%d free of %d, want %d", got/4096, total/4096, want)
		}
	}
	free(10)
	f, err := c.Create("/f")
	must(t, err)
	must(t, f.Allocate(0, 6*4096))
	free(4)
	_, err = f.WriteAt(fill('x', 6*4096), 0)
	must(t, err)
	free(4)
	n, err := f.WriteAt(fill('y', 3*4096), 8*4096+100) // blocks 8 to 11
	must(t, err)
	free(0)
	if n != 3*4096 {
		t.Fatal(n)
	}
	must(t, f.PunchHole(0, 2*4096-1)) // one whole block
	free(1)
	n, err = f.WriteAt(fill('z', 3*4096), 6*4096-5)
	if n != 4096+5 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(n, err)
	}
	free(0)
	if err := f.Allocate(0, 4096); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := c.WriteFile("/w", []byte("w")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_, err = f.WriteAt(fill('o', 4096), 9*4096) // in place
	must(t, err)
	must(t, f.Truncate(8192))
	free(9)
	must(t, c.WriteFile("/w", fill('w', 5000)))
	free(7)
	must(t, c.WriteFile("/w", fill('w', 100)))
	free(8)
	must(t, c.Remove("/f"))
	free(8)
	must(t, f.Close())
	free(9)
	c.SetCapacity(0)
	if got, _, err := c.Free("/"); got != 0 || err != nil {
		t.Fatal(got, err)
	}
	must(t, c.Remove("/w"))
}

func TestCrashNeverOvercommits(t *testing.T) {
	c := crashfs.New(1)
	c.SetCapacity(10 * 4096)
	f := file(t, c, "/f", fill('f', 8*4096))
	must(t, f.PunchHole(0, 8*4096))
	g, err := c.Create("/g")
	must(t, err)
	_, err = g.WriteAt(fill('g', 9*4096), 0)
	must(t, err)
	must(t, g.Datasync())
	must(t, c.SyncDir("/"))
	for seed := range uint64(300) {
		if d := c.Clone().Crash(seed); d.Used() > 10*4096 {
			t.Fatalf("seed %d: %d used", seed, d.Used())
		}
	}
}
