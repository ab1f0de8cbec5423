package crashfs_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"
)

func TestDeterminism(t *testing.T) {
	run := func(seed uint64) string {
		var dumps string
		f := crashfs.Replay(seed, true, func(r *crashfs.Run) error {
			for range 3 {
				r.Arm(crashfs.Plan{Crash: 100, Fault: 0.05, ReadFault: 0.05})
				scribble(r)
				r.Reboot()
				dumps += r.FS.Dump()
			}
			return errors.New("show the trace")
		})
		return dumps + fmt.Sprint(f)
	}
	for seed := range uint64(50) {
		if a, b := run(seed), run(seed); a != b {
			t.Fatalf("seed %d:\n%s\n\n%s", seed, a, b)
		}
	}
}

// scribble works on a few files until the machine is down or 200 operations
// are done.
func scribble(r *crashfs.Run) {
	name := func() string { return fmt.Sprintf("/d%d/f%d", r.Rand.IntN(2), r.Rand.IntN(4)) }
	for range 200 {
		if r.FS.Down() != nil {
			return
		}
		r.FS.MkdirAll("/d0")
		r.FS.MkdirAll("/d1")
		switch r.Rand.IntN(8) {
		case 0:
			r.FS.WriteFile(name(), fill('w', r.Rand.IntN(5000)))
		case 1:
			r.FS.Rename(name(), name())
		case 2:
			r.FS.Remove(name())
		case 3:
			r.FS.SyncDir("/d0")
			r.FS.SyncDir("/")
		default:
			n := name()
			f, err := r.FS.Open(n)
			if err != nil {
				f, err = r.FS.Create(n)
			}
			if err != nil {
				continue
			}
			f.WriteAt(fill(byte(r.Rand.IntN(256)), r.Rand.IntN(9000)), int64(r.Rand.IntN(9000)))
			f.PunchHole(int64(r.Rand.IntN(9000)), int64(r.Rand.IntN(9000)))
			f.Allocate(int64(r.Rand.IntN(9000)), int64(r.Rand.IntN(9000)))
			if r.Rand.IntN(2) == 0 {
				f.Datasync()
			}
			if r.Rand.IntN(4) > 0 {
				f.Close()
			}
		}
	}
}

// TestAccounting compares the running count of blocks with a recount, through
// crashes, kills, faults and a full disk.
func TestAccounting(t *testing.T) {
	crashfs.Explore(t, 200, 5, func(r *crashfs.Run) error {
		r.FS.SetCapacity(12 * 4096)
		for range 4 {
			r.Arm(crashfs.Plan{Crash: 300, Fault: 0.02})
			scribble(r)
			r.Reboot()
			files := make(map[uint64]int64)
			for _, fi := range r.FS.Files() {
				st, err := r.FS.Stat(fi.Path)
				if err != nil {
					return err
				}
				sys := st.Sys().(*syscall.Stat_t)
				files[sys.Ino] = fi.Blocks * 4096
			}
			var sum int64
			for _, n := range files {
				sum += n
			}
			if used := r.FS.Used(); used != sum {
				return fmt.Errorf("%d used, files hold %d", used, sum)
			}
			free, total, err := r.FS.Free("/")
			if err != nil {
				return err
			}
			if free+sum != total {
				return fmt.Errorf("%d free + %d used of %d", free, sum, total)
			}
		}
		return nil
	})
}

func TestExploreFindsAndReplays(t *testing.T) {
	// A journal that trusts the order of two unsynced writes.
	workload := func(d func(*crashfs.FS) disk.FS) func(r *crashfs.Run) error {
		return func(r *crashfs.Run) error {
			f, err := d(r.FS).Create("/f")
			if err != nil {
				return err
			}
			if err := errors.Join(f.Truncate(8192), f.Datasync(), r.FS.SyncDir("/")); err != nil {
				return err
			}
			r.Arm(crashfs.Plan{Crash: 10})
			for i := byte(1); err == nil; i++ {
				if _, err = f.WriteAt(fill(i, 4096), 4096); err != nil {
					break
				}
				if err = f.Datasync(); err != nil {
					break
				}
				if _, err = f.WriteAt([]byte{i}, 0); err != nil {
					break
				}
				err = f.Datasync()
			}
			r.PowerLoss()
			data, err := r.FS.ReadFile("/f")
			if err != nil {
				return err
			}
			if len(data) != 8192 {
				return fmt.Errorf("%d bytes", len(data))
			}
			for _, b := range data[4096:] {
				if b < data[0] {
					return fmt.Errorf("version %d has data of %d", data[0], b)
				}
			}
			return nil
		}
	}
	sound := workload(func(c *crashfs.FS) disk.FS { return c })
	if f := crashfs.Search(500, 1, sound); f != nil {
		t.Fatal(f)
	}
	for name, mutate := range map[string]func(*crashfs.Mutant){
		"no datasync":      func(m *crashfs.Mutant) { m.NoDatasync = true },
		"late datasync":    func(m *crashfs.Mutant) { m.LateDatasync = true },
		"no datasync of f": func(m *crashfs.Mutant) { m.NoDatasync, m.Only = true, []string{"f"} },
	} {
		broken := workload(func(c *crashfs.FS) disk.FS {
			m := &crashfs.Mutant{FS: c}
			mutate(m)
			return m
		})
		f := crashfs.Search(500, 1, broken)
		if f == nil {
			t.Fatalf("%s: not found in 500 runs", name)
		}
		again := crashfs.Replay(f.Seed, true, broken)
		if again == nil || again.Err.Error() != f.Err.Error() {
			t.Errorf("%s: %v\nreplayed: %v", name, f, again)
		}
	}
	if f := crashfs.Search(10, 1, func(r *crashfs.Run) error { panic("oops") }); f == nil {
		t.Error("a panic is no failure")
	}
}

func BenchmarkCrash(b *testing.B) {
	c := crashfs.New(1)
	rng := make([]byte, 4<<20)
	for i := range rng {
		rng[i] = byte(i * 7)
	}
	f := file(b, c, "/seg", rng)
	must(b, f.Allocate(0, 64<<20))
	must(b, f.Datasync())
	for i := range int64(20) {
		_, err := f.WriteAt(rng[:64<<10], 4<<20+i*64<<10)
		must(b, err)
	}
	b.ReportAllocs()
	for i := range b.N {
		c.Clone().Crash(uint64(i))
	}
}

func BenchmarkCommit(b *testing.B) {
	c := crashfs.New(1)
	f := file(b, c, "/seg", nil)
	must(b, f.Allocate(0, 64<<20))
	p := fill('x', 1500)
	b.ReportAllocs()
	for i := range b.N {
		_, err := f.WriteAt(p, int64(i%40000)*1500)
		must(b, err)
		must(b, f.Datasync())
	}
}
