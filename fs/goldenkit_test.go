package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hearth/log"
	"hearth/log/seal"
)

// What golden drives show, and how it is read.

// goldenDrive is expected.json.
type goldenDrive struct {
	Drive    string            `json:"drive"`
	Name     string            `json:"name"`
	Boxes    []goldenBox       `json:"boxes"`
	Logs     []goldenLog       `json:"logs"`
	Tags     map[string]uint64 `json:"tags"`
	Versions []goldenVersion   `json:"versions"`
}

// goldenBox is a recipient of key boxes, and what those of all epochs hold.
type goldenBox struct {
	Kind log.RecipientKind `json:"kind"`
	Seed string            `json:"seed"`
	Keys map[uint32]string `json:"keys"`
}

type goldenLog struct {
	Writer  log.Writer `json:"writer"`
	Size    uint64     `json:"size"`
	Root    string     `json:"root"`
	Dropped []uint64   `json:"dropped,omitempty"`
}

type goldenVersion struct {
	Seq    uint64       `json:"version"`
	Time   string       `json:"time"`
	Hidden bool         `json:"hidden,omitempty"`
	Files  []goldenFile `json:"files"`
}

// goldenFile is a name in a version. Paths and targets are quoted as in Go,
// without the quotes, as they need not be UTF-8.
type goldenFile struct {
	Path   string            `json:"path"`
	Ino    Ino               `json:"ino"`
	Mode   string            `json:"mode"` // octal, as in stat
	Nlink  uint32            `json:"nlink"`
	Uid    uint32            `json:"uid"`
	Gid    uint32            `json:"gid"`
	Rdev   uint32            `json:"rdev,omitempty"`
	Size   uint64            `json:"size"`
	Blocks uint64            `json:"blocks"`
	Mtime  string            `json:"mtime"`
	Ctime  string            `json:"ctime"`
	Btime  string            `json:"btime"`
	Target string            `json:"target,omitempty"`
	SHA256 string            `json:"sha256,omitempty"` // of a regular file's contents
	Xattrs map[string]string `json:"xattrs,omitempty"` // SHA-256 of each value
	// How many bytes of contents are in blocks of which writer and epoch.
	Stored map[string]uint64 `json:"stored,omitempty"`
}

func quoted(s string) string { q := strconv.QuoteToASCII(s); return q[1 : len(q)-1] }

func unquoted(s string) string {
	u, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		panic(err)
	}
	return u
}

func stamp(t Time) string { return t.Std().Format(time.RFC3339Nano) }

func digest(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }

// goldenCopy is a copy of a golden drive that is open.
type goldenCopy struct {
	*testDrive
	store *log.Store
}

// putStore writes the files of a store.
func putStore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		// Whatever the mode of what was checked out.
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// openGolden opens a drive in a directory it was copied to.
func openGolden(t *testing.T, dir string, so log.StoreOptions, o Options) *goldenCopy {
	t.Helper()
	so.Dir = dir
	s, err := log.OpenStore(so)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Copied() {
		t.Error("that the store was copied goes unnoticed")
	}
	o.Store, o.Delay = s, time.Hour
	d, err := Open(ctx, o)
	if err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	return &goldenCopy{&testDrive{Drive: d, t: t, dir: dir, opts: o}, s}
}

// expectation returns what a drive shows, as expected.json says it.
func (g *goldenCopy) expectation() goldenDrive {
	g.t.Helper()
	e := goldenDrive{Drive: g.store.ID(), Name: g.store.Name(), Boxes: g.boxes(), Tags: map[string]uint64{}}
	logs := g.store.Logs()
	for _, w := range slices.Sorted(maps.Keys(logs)) {
		head := logs[w].Head()
		e.Logs = append(e.Logs, goldenLog{w, head.Size, hex.EncodeToString(head.Root[:]), logs[w].Dropped().ToArray()})
	}
	tags, err := g.Tags(ctx, "/")
	g.must(err)
	for _, t := range tags {
		e.Tags[t.Name] = t.Version.Seq
	}
	u, err := g.BeginUpkeep(ctx)
	g.must(err)
	versions := u.Versions()
	u.End()
	for _, v := range versions {
		s, err := g.At(ctx, v.Version)
		g.must(err)
		out := goldenVersion{Seq: v.Version.Seq, Time: v.Time.UTC().Format(time.RFC3339Nano), Hidden: v.Hidden}
		out.Files = g.list(s, RootIno, "", []goldenFile{g.file(s, RootIno, "/")})
		e.Versions = append(e.Versions, out)
	}
	return e
}

func (g *goldenCopy) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// boxes opens the key boxes in the logs.
func (g *goldenCopy) boxes() []goldenBox {
	g.t.Helper()
	m := g.membership()
	var out []goldenBox
	for _, to := range goldenRecipients {
		key, err := log.NewBoxKey(to.kind, to.seed)
		g.must(err)
		if r, ok := m.Recipient(key.ID()); !ok || r.Kind != to.kind {
			g.t.Errorf("the recipient of kind %d is not known", to.kind)
		}
		b := goldenBox{to.kind, hex.EncodeToString(to.seed[:]), map[uint32]string{}}
		for _, epoch := range m.Epochs() {
			box, ok := m.Box(epoch, key.ID())
			if !ok {
				continue
			}
			opened, err := log.OpenBox(m.DriveID(), box, key)
			g.must(err)
			b.Keys[epoch] = hex.EncodeToString(opened[:])
		}
		out = append(out, b)
	}
	return out
}

// membership is what the control entries of all logs add up to.
func (g *goldenCopy) membership() *log.Membership {
	g.t.Helper()
	var genesis *log.Genesis
	var placed []log.Placed
	for w, l := range g.store.Logs() {
		for i := range l.Size() {
			if !l.IsControl(i) {
				continue
			}
			c, err := l.ReadControl(i)
			g.must(err)
			if first, ok := c.(*log.Genesis); ok {
				genesis = first
			}
			placed = append(placed, log.Placed{Writer: w, Index: i, Control: c})
		}
	}
	if genesis == nil {
		g.t.Fatal("there is no genesis")
	}
	m, refused := log.ReplayMembership(genesis, placed)
	g.must(errors.Join(refused...))
	return m
}

func (g *goldenCopy) list(s *Snapshot, dir Ino, path string, out []goldenFile) []goldenFile {
	g.t.Helper()
	var entries []DirEntry
	g.must(s.ReadDir(ctx, dir, "", func(e DirEntry) bool { entries = append(entries, e); return true }))
	for _, e := range entries {
		name := path + "/" + e.Name
		a, err := s.Lookup(ctx, dir, e.Name)
		if err != nil || a.Ino != e.Ino || a.Mode&ModeType != e.Type {
			g.t.Fatalf("%q: %+v for %+v, %v", name, a, e, err)
		}
		out = append(out, g.file(s, e.Ino, name))
		if e.Type == ModeDir {
			out = g.list(s, e.Ino, name, out)
		}
	}
	return out
}

func (g *goldenCopy) file(s *Snapshot, ino Ino, path string) goldenFile {
	g.t.Helper()
	a, err := s.Getattr(ctx, ino)
	g.must(err)
	f := goldenFile{
		Path: quoted(path), Ino: ino, Mode: strconv.FormatUint(uint64(a.Mode), 8), Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Rdev: a.Rdev,
		Size: a.Size, Blocks: a.Blocks, Mtime: stamp(a.Mtime), Ctime: stamp(a.Ctime), Btime: stamp(a.Btime),
	}
	if a.Mode&ModeType == ModeSymlink {
		target, err := s.Readlink(ctx, ino)
		g.must(err)
		f.Target = quoted(target)
	}
	names, err := s.Listxattr(ctx, ino)
	g.must(err)
	for _, name := range names {
		value, err := s.Getxattr(ctx, ino, name)
		g.must(err)
		if f.Xattrs == nil {
			f.Xattrs = map[string]string{}
		}
		f.Xattrs[name] = digest(value)
	}
	if a.IsRegular() {
		f.SHA256 = digest(g.read(s, ino, a.Size, 128<<10))
		// Reads that begin and end in the middle of blocks of either writer.
		if got := digest(g.read(s, ino, a.Size, int(max(4999, a.Size/16)))); got != f.SHA256 {
			g.t.Errorf("%q of version %v reads otherwise in small parts", path, s.Version)
		}
		f.Stored = g.stored(s, ino, a.Size)
	}
	return f
}

// read reads a file, so many bytes at a time.
func (g *goldenCopy) read(s *Snapshot, ino Ino, size uint64, step int) []byte {
	g.t.Helper()
	out := make([]byte, 0, size)
	buf := make([]byte, step)
	for {
		n, err := s.ReadAt(ctx, ino, buf, int64(len(out)))
		out = append(out, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		g.must(err)
	}
	if uint64(len(out)) != size {
		g.t.Errorf("%d bytes of inode %d, which has %d", len(out), ino, size)
	}
	return out
}

// stored tells in whose blocks a file's contents are.
func (g *goldenCopy) stored(s *Snapshot, ino Ino, size uint64) map[string]uint64 {
	g.t.Helper()
	exts, err := collect(s.v, ino, 0, size)
	g.must(err)
	var out map[string]uint64
	for _, e := range exts {
		epoch, err := seal.BlockEpoch(g.block(e.ref))
		g.must(err)
		if out == nil {
			out = map[string]uint64{}
		}
		out[fmt.Sprintf("writer %d, epoch %d", e.ref.Writer, epoch)] += e.length
	}
	return out
}

func (g *goldenCopy) block(ref log.Ref) []byte {
	g.t.Helper()
	l, err := g.store.Log(ref.Writer)
	g.must(err)
	stored, err := l.ReadStored(nil, ref.Index)
	g.must(err)
	return stored
}

// live checks that the drive itself shows its newest version.
func (g *goldenCopy) live() {
	g.t.Helper()
	s, err := g.At(ctx, g.Newest())
	g.must(err)
	for _, f := range g.list(s, RootIno, "", nil) {
		if f.SHA256 != "" && digest(g.content(f.Ino)) != f.SHA256 {
			g.t.Errorf("%q reads otherwise than in version %v", f.Path, s.Version)
		}
	}
}

// whole finds nothing wrong with the store as it was opened, or that its
// indexes were made anew.
func (g *goldenCopy) whole(rebuilt bool) {
	g.t.Helper()
	h := g.store.Health()
	indexes := 0
	for _, d := range h.Damage {
		if filepath.Base(d.File) == "index" {
			indexes++
		}
	}
	if rebuilt != (indexes > 0) || len(h.Damage) > indexes || len(h.Forks) > 0 {
		g.t.Errorf("the store is %+v", h)
	}
}

// verify finds nothing wrong with the drive and its logs.
func (g *goldenCopy) verify() {
	g.t.Helper()
	sum, err := g.Verify(ctx, func(d Damage) { g.t.Errorf("damage: %+v", d) }, nil)
	if err != nil || sum.Versions == 0 {
		g.t.Errorf("verified %+v, %v", sum, err)
	}
	logs := g.store.Logs()
	if len(logs) != 2 || len(g.store.Members()) != 2 {
		g.t.Errorf("%d logs of %d writers", len(logs), len(g.store.Members()))
	}
	for w, l := range logs {
		if err := l.Verify(ctx, func(d log.Damage) { g.t.Errorf("log %d: %v", w, d) }, nil); err != nil {
			g.t.Error(err)
		}
	}
}

func encodeGolden(t testing.TB, e goldenDrive) []byte {
	t.Helper()
	b, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// same compares what a drive shows with expected.json.
func (g *goldenCopy) same(want []byte, when string) {
	g.t.Helper()
	got := encodeGolden(g.t, g.expectation())
	if bytes.Equal(got, want) {
		return
	}
	have, expected := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(have), len(expected)) {
		if have[i] != expected[i] {
			g.t.Fatalf("%s, line %d is\n%s\nand not\n%s", when, i+1, have[i], expected[i])
		}
	}
	g.t.Fatalf("%s there are %d lines, not %d", when, len(have), len(expected))
}

// golden returns the files of a golden store, and what it shows.
func golden(t *testing.T, dir string) (files map[string][]byte, expected []byte) {
	t.Helper()
	files = map[string][]byte{}
	root := filepath.Join(dir, "store")
	err := filepath.WalkDir(root, func(path string, e iofs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if expected, err = os.ReadFile(filepath.Join(dir, "expected.json")); err != nil {
		t.Fatal(err)
	}
	return files, expected
}
