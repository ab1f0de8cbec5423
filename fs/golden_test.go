package fs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth/log"
	"hearth/log/seal"
)

// testdata/drive has whole drives as they lie on disk, one for each version of
// the format: vN/store is the directory of the drive, without the reserve, and
// vN/expected.json what it shows. Once released they never change: whatever is
// done to the program, it opens them and shows that.

var (
	update  = flag.Bool("update", false, "write the golden drive of the present format, if there is none, to testdata/drive")
	replace = flag.Bool("replace", false, "with -update: also if there is one, which is right only before it was released")
)

var goldenDrives = filepath.Join("..", "testdata", "drive")

// writeGolden makes the golden store of the present format.
func writeGolden(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil && !*replace {
		t.Fatalf("%s is there: golden stores never change; a new format has a new one", dir)
	}
	g := makeGolden(t)
	files := g.bytes()
	temp := t.TempDir()
	putStore(t, temp, files)
	o := openGolden(t, temp, log.StoreOptions{}, Options{})
	defer o.shut()
	e := o.expectation()
	g.compare(e)
	o.verify()
	if t.Failed() {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	putStore(t, filepath.Join(dir, "store"), files)
	if err := os.WriteFile(filepath.Join(dir, "expected.json"), encodeGolden(t, e), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenDrives opens every drive that was ever released, on another
// machine and in other places than it was made, and reads all its versions.
func TestGoldenDrives(t *testing.T) {
	present := filepath.Join(goldenDrives, fmt.Sprintf("v%d", log.FormatVersion))
	if *update {
		writeGolden(t, present)
	}
	if _, err := os.Stat(present); err != nil {
		t.Errorf("the present format has no golden drive: %v", err)
	}
	dirs, err := filepath.Glob(filepath.Join(goldenDrives, "v*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		files, want := golden(t, dir)
		for _, tt := range []struct {
			name  string
			store log.StoreOptions
			drive Options
			spoil func(files map[string][]byte) // its indexes
		}{
			{name: "as it is"},
			{name: "small segments", store: log.StoreOptions{Machine: "golden", Inline: true, Tiny: true}, drive: Options{NoIndex: true}},
			{name: "without indexes", spoil: func(files map[string][]byte) {
				maps.DeleteFunc(files, func(name string, _ []byte) bool { return strings.Contains(name, "/index/") })
			}},
			{name: "with rotten indexes", spoil: func(files map[string][]byte) {
				for name := range files {
					if strings.Contains(name, "/index/") {
						files[name] = random(len(files[name]), 1)
					}
				}
			}},
		} {
			t.Run(filepath.Base(dir)+" "+tt.name, func(t *testing.T) {
				files := maps.Clone(files)
				if tt.spoil != nil {
					tt.spoil(files)
				}
				at := t.TempDir()
				putStore(t, at, files)
				for _, when := range []string{"opened", "opened again"} {
					g := openGolden(t, at, tt.store, tt.drive)
					g.whole(tt.spoil != nil && when == "opened")
					g.same(want, when)
					g.live()
					g.verify()
					g.shut()
				}
			})
		}
	}
}

// TestGoldenKeys has the store's own keys be those in the boxes, and each of
// them be needed for blocks of each writer.
func TestGoldenKeys(t *testing.T) {
	g := copyGolden(t)
	defer g.shut()
	boxes := g.boxes()
	for _, b := range boxes {
		if len(b.Keys) != 2 || !maps.Equal(b.Keys, boxes[0].Keys) {
			t.Errorf("the boxes of %d hold %v", b.Kind, b.Keys)
		}
	}
	ring := func(epochs ...uint32) *seal.Keyring {
		k := seal.NewKeyring()
		for _, e := range epochs {
			b, err := hex.DecodeString(boxes[0].Keys[e])
			g.must(err)
			k.Add(e, [32]byte(b))
		}
		return k
	}
	both, only := ring(0, 1), []*seal.Keyring{ring(0), ring(1)}
	type sealed struct {
		writer log.Writer
		epoch  uint32
	}
	count := map[sealed]int{}
	for w, l := range g.store.Logs() {
		for i := range l.Size() {
			if l.IsControl(i) || !l.Present(i) {
				continue
			}
			stored := g.block(log.Ref{Writer: w, Index: i})
			epoch, err := seal.BlockEpoch(stored)
			g.must(err)
			for _, kind := range []seal.Kind{seal.Data, seal.Page, seal.Commit} {
				plain, err := both.Open(nil, kind, stored)
				if err != nil {
					continue
				}
				count[sealed{w, epoch}]++
				if got, err := only[epoch].Open(nil, kind, stored); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("block %d:%d needs more than its epoch's key: %v", w, i, err)
				}
				if _, err := only[1-epoch].Open(nil, kind, stored); err == nil {
					t.Errorf("block %d:%d opens with the key of another epoch", w, i)
				}
			}
		}
	}
	if len(count) != 4 {
		t.Errorf("blocks by writer and epoch: %v", count)
	}
	// Each writer's log ends with a version.
	for w, l := range g.store.Logs() {
		if c, err := g.readCommit(log.Ref{Writer: w, Index: l.Size() - 1}); err != nil || c.seq < 2 {
			t.Errorf("the last entry of writer %d is %+v, %v", w, c, err)
		}
	}
}

func copyGolden(t *testing.T) *goldenCopy {
	t.Helper()
	files, _ := golden(t, filepath.Join(goldenDrives, "v1"))
	dir := t.TempDir()
	putStore(t, dir, files)
	// Later than anything that was opened, or is in use, in it.
	clock := func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }
	return openGolden(t, dir, log.StoreOptions{}, Options{Clock: clock})
}

// TestGoldenUpkeep has a drive with blocks of another writer kept up: what is
// swept is the own log's, what is read stays the same.
func TestGoldenUpkeep(t *testing.T) {
	g := copyGolden(t)
	defer func() { g.shut() }()
	newest := func() []goldenFile {
		s, err := g.At(ctx, g.Newest())
		g.must(err)
		return g.list(s, RootIno, "", nil)
	}
	before := newest()
	theirs, err := g.store.Log(1)
	g.must(err)
	size, head := theirs.Size(), theirs.Head()

	g.put(RootIno, "written to the copy", random(100_000, 1))
	g.must(g.Drive.Sync(ctx))
	g.must(g.Unlink(ctx, me, RootIno, "written to the copy"))
	g.must(g.Drive.Sync(ctx))
	u, err := g.BeginUpkeep(ctx)
	g.must(err)
	gone, err := u.Thin(ctx, time.Time{}, nil)
	g.must(err)
	waste, err := u.Drop(ctx, SweepOptions{Grace: -1})
	g.must(err)
	_, err = u.Reclaim(ctx)
	g.must(err)
	u.End()
	if gone < 10 || waste.Bytes < 100_000 {
		t.Errorf("%d versions went, and %+v", gone, waste)
	}
	g.verify()
	done, err := g.Coalesce(ctx, CoalesceOptions{})
	g.must(err)
	if done < theirPieces*64 {
		t.Errorf("%d bytes are in larger blocks", done)
	}
	g.verify()
	check := func(when string) {
		after := newest()
		for i := range before { // the root's times are not in the list
			b, a := before[i], after[i]
			b.Stored, a.Stored = nil, nil
			if fmt.Sprint(b) != fmt.Sprint(a) {
				t.Errorf("%s it is\n%+v\nand was\n%+v", when, a, b)
			}
		}
		if len(before) != len(after) {
			t.Errorf("%s there are %d files, not %d", when, len(after), len(before))
		}
		theirs, err := g.store.Log(1)
		g.must(err)
		if theirs.Size() != size || theirs.Head().Root != head.Root || !theirs.Dropped().IsEmpty() {
			t.Errorf("%s the other writer's log has changed", when)
		}
	}
	check("after the upkeep")
	g.must(g.store.Bind())
	g.reopen()
	g.store = g.Store()
	g.verify()
	check("opened again")
}

// TestGoldenWithoutAWriter opens a drive that lacks the log of another writer:
// what is not in that log can be used, and nothing is taken for lost when it
// comes back.
func TestGoldenWithoutAWriter(t *testing.T) {
	files, want := golden(t, filepath.Join(goldenDrives, "v1"))
	dir := t.TempDir()
	putStore(t, dir, files)
	away := filepath.Join(t.TempDir(), "log")
	if err := os.Rename(filepath.Join(dir, "log-0001"), away); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }
	g := openGolden(t, dir, log.StoreOptions{}, Options{Clock: clock})
	g.whole(false)
	if got := digest(g.get(RootIno, "text")); !bytes.Contains(want, []byte(got)) {
		t.Error("a file of the own log reads otherwise")
	}
	s, err := g.At(ctx, g.Newest())
	g.must(err)
	if _, err := s.ReadAt(ctx, theirIno, make([]byte, 10), 0); !errors.Is(err, log.ErrAbsent) {
		t.Errorf("reading what is not there: %v", err)
	}
	if _, err := s.Getxattr(ctx, theirIno, "user.theirs"); !errors.Is(err, log.ErrAbsent) {
		t.Errorf("reading an attribute that is not there: %v", err)
	}
	told := 0
	_, err = g.Verify(ctx, func(d Damage) {
		told++
		if !strings.HasPrefix(d.Block, "1:") || !strings.HasPrefix(d.Path, "/shared/") {
			t.Errorf("damage: %+v", d)
		}
	}, nil)
	if err != nil || told == 0 {
		t.Errorf("a missing log was found %d times: %v", told, err)
	}
	if n, err := g.Coalesce(ctx, CoalesceOptions{}); n != 0 || err != nil {
		t.Errorf("%d bytes were written again, %v", n, err)
	}
	g.shut()
	if err := os.Rename(away, filepath.Join(dir, "log-0001")); err != nil {
		t.Fatal(err)
	}
	g = openGolden(t, dir, log.StoreOptions{}, Options{})
	defer g.shut()
	g.same(want, "with the log again")
	g.verify()
}
