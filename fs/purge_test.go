package fs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hearth/log/disk/crashfs"
)

// secretName and secretBytes are what a purge has to leave no trace of.
const secretName = "zzsecretplan"

func secretBytes(n int, seed uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "<<classified %d>>", seed), n/16+1)[:n]
}

// traces looks for the secret in all blocks that can be read.
func (td *testDrive) traces() string {
	td.t.Helper()
	found := ""
	rawBlocks(td.t, td.Store(), func(index uint64, plain []byte) {
		for _, s := range []string{secretName, "<<classified"} {
			if bytes.Contains(plain, []byte(s)) && found == "" {
				found = fmt.Sprintf("block %d holds %q", index, s)
			}
		}
		// Pages split keys into a common prefix and the rest.
		if i := bytes.Index(plain, []byte("secretpl")); i >= 0 && found == "" {
			found = fmt.Sprintf("block %d holds %q", index, plain[max(0, i-10):min(len(plain), i+20)])
		}
	})
	return found
}

func (td *testDrive) purge(path string) PurgeResult {
	td.t.Helper()
	r, err := td.Purge(ctx, path, nil)
	if err != nil {
		td.t.Fatal(err)
	}
	return r
}

func (td *testDrive) verified() {
	td.t.Helper()
	if _, err := td.Verify(ctx, func(d Damage) { td.t.Errorf("damage: %+v", d) }, nil); err != nil {
		td.t.Fatal(err)
	}
}

func TestPurgeLeavesNoTrace(t *testing.T) {
	for _, many := range []int{5, 900} { // in the root buffer, and in pages
		t.Run(fmt.Sprint(many), func(t *testing.T) {
			td := newTestDrive(t, Options{Delay: time.Hour})
			dir, err := td.Mkdir(ctx, me, RootIno, "dir", 0o755)
			if err != nil {
				t.Fatal(err)
			}
			sync := func() {
				t.Helper()
				if err := td.Sync(ctx); err != nil {
					t.Fatal(err)
				}
			}
			// Small files beside the secret ones share blocks with them.
			others := map[string][]byte{}
			for i := range many {
				name := fmt.Sprintf("%c%04d", 'a'+i%26, i)
				others[name] = random(700, uint64(i))
				td.put(dir.Ino, name, others[name])
				if i%9 == 0 {
					td.put(dir.Ino, fmt.Sprintf("%s%d", secretName, i), secretBytes(900, uint64(i)))
				}
				if i%50 == 0 {
					sync()
				}
			}
			sub, err := td.Mkdir(ctx, me, dir.Ino, "sub", 0o755)
			if err != nil {
				t.Fatal(err)
			}
			td.put(sub.Ino, secretName, secretBytes(300_000, 1))
			if err := td.Setxattr(ctx, me, sub.Ino, "user."+secretName, secretBytes(5000, 2), 0); err != nil {
				t.Fatal(err)
			}
			sync()
			for i := range 5 {
				td.put(sub.Ino, secretName, secretBytes(1000*i+1, uint64(10+i)))
				td.put(dir.Ino, "a0000", random(300, uint64(i)))
				others["a0000"] = random(300, uint64(i))
				sync()
			}
			if err := td.Rename(ctx, me, sub.Ino, secretName, sub.Ino, secretName+"2", 0); err != nil {
				t.Fatal(err)
			}
			sync()
			if td.traces() == "" {
				t.Fatal("the test does not find what is there")
			}
			for i := range many {
				if i%9 == 0 {
					r := td.purge(fmt.Sprintf("/dir/%s%d", secretName, i))
					if r.Inodes != 1 || len(r.Left) > 0 {
						t.Fatalf("%+v", r)
					}
					if many > 100 && i > 90 {
						break
					}
				}
			}
			for i := 99; many > 100 && i < many; i += 9 { // the rest as a directory
				if err := td.Rename(ctx, me, dir.Ino, fmt.Sprintf("%s%d", secretName, i), sub.Ino, fmt.Sprint(i), 0); err != nil && !errors.Is(err, ErrNotExist) {
					t.Fatal(err)
				}
			}
			sync()
			r := td.purge("/dir/sub")
			if len(r.Left) > 0 {
				t.Fatalf("%+v", r)
			}
			if found := td.traces(); found != "" {
				t.Error(found)
			}
			check := func() {
				t.Helper()
				for name, data := range others {
					if !bytes.Equal(td.get(dir.Ino, name), data) {
						t.Fatalf("%s differs", name)
					}
				}
				td.verified()
			}
			check()
			td.reopen()
			check()
			if found := td.traces(); found != "" {
				t.Error(found)
			}
		})
	}
}

func TestPurgeKeepsToThePath(t *testing.T) {
	td := newTestDrive(t, Options{Delay: time.Hour})
	sync := func() {
		t.Helper()
		if err := td.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ino := td.put(RootIno, "a", []byte("one"))
	sync()
	if _, err := td.Link(ctx, me, ino, RootIno, "b"); err != nil {
		t.Fatal(err)
	}
	var linked *LinkedError
	if _, err := td.Purge(ctx, "/a", nil); !errors.As(err, &linked) || strings.Join(linked.Paths, " ") != "/b" || !errors.Is(err, ErrConflict) {
		t.Fatalf("a hard link: %v", err)
	}
	if got := td.get(RootIno, "a"); string(got) != "one" {
		t.Fatalf("got %q", got)
	}
	if err := td.Rename(ctx, me, RootIno, "a", RootIno, "moved", 0); err != nil {
		t.Fatal(err)
	}
	sync()
	td.put(RootIno, "a", []byte("two"))
	sync()
	r := td.purge("/a")
	if len(r.Left) != 1 || !strings.HasPrefix(r.Left[0], "/b ") && !strings.HasPrefix(r.Left[0], "/moved ") {
		t.Fatalf("%+v", r)
	}
	if got := td.get(RootIno, "moved"); string(got) != "one" {
		t.Fatalf("got %q", got)
	}
	if _, err := td.Purge(ctx, "/never", nil); !errors.Is(err, ErrNotExist) {
		t.Fatalf("what never was: %v", err)
	}
	if _, err := td.Purge(ctx, "/", nil); !errors.Is(err, ErrInvalid) {
		t.Fatalf("the root: %v", err)
	}
	td.verified()
}

// Random histories: the purged is gone from every version, the rest of every
// version reads as before.
func TestPurgeRandom(t *testing.T) {
	crashfs.Explore(t, 12, 5, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		for range 3 {
			if err := c.work(60); err != nil {
				return err
			}
			if err := c.purgeRandom(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *sweepRun) purgeRandom() error {
	if err := c.drive.Sync(ctx); err != nil {
		return err
	}
	if err := c.look(); err != nil {
		return err
	}
	dir, path := c.now.pick(c.Rand)
	name := randomName(c.Rand)
	p := "/" + strings.Join(append(path[:len(path):len(path)], name), "/")
	before, err := c.versions()
	if err != nil {
		return err
	}
	_, err = c.drive.Purge(ctx, p, nil)
	switch {
	case errors.Is(err, ErrNotExist):
		if dir.children[name] != nil {
			return fmt.Errorf("%w: purging %s: %w", errWrongState, p, err)
		}
		return nil
	case errors.Is(err, ErrConflict):
		return nil
	case err != nil:
		return err
	}
	delete(dir.children, name)
	got, err := dumpDrive(c.drive)
	if err != nil {
		return err
	}
	if want := c.now.dump(); got != want {
		return fmt.Errorf("%w: after purging %s the drive shows\n%s\nnot\n%s", errWrongState, p, got, want)
	}
	// In every version what is left is as it was.
	for _, seq := range before {
		s, err := c.drive.At(ctx, Version{0, seq})
		if err != nil {
			return fmt.Errorf("%w: %w", errWrongState, err)
		}
		dump, err := dumpSnapshot(s)
		if err != nil {
			return fmt.Errorf("%w: version %d after purging %s: %w", errWrongState, seq, p, err)
		}
		if want := without(c.reads[seq], dump); want != "" {
			return fmt.Errorf("%w: version %d after purging %s reads\n%s\nit was\n%s\n%s", errWrongState, seq, p, dump, c.reads[seq], want)
		}
		c.reads[seq] = dump
	}
	c.clock = c.clock.Add(time.Hour)
	for _, check := range []func() error{c.verify, c.sweep, c.look, c.verify} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// without says what of a dump is not in an earlier one, leaving aside the
// numbers of inodes.
func without(before, after string) string {
	had := map[string]bool{}
	strip := func(line string) string {
		path, rest, _ := strings.Cut(line, " #")
		_, rest, _ = strings.Cut(rest, " ")
		return path + " " + rest
	}
	for _, line := range strings.Split(before, "\n") {
		had[strip(line)] = true
	}
	for _, line := range strings.Split(after, "\n") {
		if !had[strip(line)] {
			return line
		}
	}
	return ""
}

func TestPurgeCrashes(t *testing.T) {
	n := 20
	if testing.Short() {
		n = 8
	}
	crashfs.Explore(t, n, 6, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		if err := c.work(80); err != nil {
			return err
		}
		if err := c.drive.Sync(ctx); err != nil {
			return err
		}
		name := randomName(r.Rand)
		r.Arm(crashfs.Plan{Crash: 80, Fault: []float64{0, 0.02}[r.Rand.IntN(2)]})
		if _, err := c.drive.Purge(ctx, "/"+name, nil); err != nil && !broken(err) && !isAny(err, ErrNotExist, ErrConflict) && r.FS.Down() == nil {
			return err
		}
		c.shut()
		r.Reboot()
		if err := c.open(); err != nil {
			return fmt.Errorf("%w: %w", errWrongState, err)
		}
		for _, check := range []func() error{c.look, c.verify} {
			if err := check(); err != nil {
				return fmt.Errorf("%w: %w", errWrongState, err)
			}
		}
		_, err := c.drive.Purge(ctx, "/"+name, nil)
		if isAny(err, ErrNotExist, ErrConflict) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: purging again: %w", errWrongState, err)
		}
		return c.verify()
	})
}
