package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"hearth/log"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"
	"hearth/log/wire"
)

// Making a golden store: a drive as it lies on disk, with all that the format
// has a place for. This product has one writer; the blocks of a second one, and
// the records of the first that lead to them, are put there by hand, through
// what encodes and commits all others.

// goldenMaker is a golden store while it is made.
type goldenMaker struct {
	t     *testing.T
	disk  *crashfs.FS
	clock time.Time
	store *log.Store
	*Drive

	files map[string][]byte            // what was written, by path
	told  map[uint64]map[string]string // its digests, by version
	junk  map[uint64]bool              // versions to go

	second *log.Signer // of writer 1
	theirs []log.Ref   // its data blocks,
	plain  [][]byte    // and what is in them
}

const goldenDir = "/drive"

// Secrets of the golden stores, which are none.
var (
	goldenSecond = [32]byte{1, 2, 3} // seed of the log of writer 1
	goldenDevice = [32]byte{4, 5, 6} // seed of a recipient of key boxes: a device
	goldenKit    = [32]byte{7, 8, 9} // and a recovery kit
	goldenRead   = [32]byte{10, 11}  // read key of epoch 1
)

// goldenRecipients are those that hold the read keys.
var goldenRecipients = []struct {
	kind log.RecipientKind
	seed [32]byte
}{{log.RecipientDevice, goldenDevice}, {log.RecipientRecovery, goldenKit}}

// theirIno is the inode of a file that writer 1 made.
const theirIno = 1<<48 | Ino(firstIno)

// theirPieces is how many small blocks of writer 1 there are: with its others
// more than fill a tile of the hash tree.
const theirPieces = 270

func (g *goldenMaker) storeOptions() log.StoreOptions {
	return log.StoreOptions{
		FS: g.disk, Dir: goldenDir, Machine: "golden", Inline: true, Tiny: true,
		Random: rand.NewChaCha8([32]byte{1}), Now: func() time.Time { return g.clock },
	}
}

// must ends the test on an error.
func (g *goldenMaker) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// open begins or goes on with the drive.
func (g *goldenMaker) open() {
	g.t.Helper()
	// No timer and no index of the drive: every step is the maker's.
	o := Options{NoIndex: true, Delay: time.Hour, Clock: func() time.Time { return g.clock }}
	var err error
	if g.store == nil {
		g.store, err = log.CreateStore(g.storeOptions(), "golden")
		g.must(err)
		g.control(&log.WriterAdded{Writer: 1, Issue: 1, Log: [32]byte(g.second.Public()), Device: [32]byte{0xdd}, Capabilities: log.CapAll})
		g.boxes(0, g.key(0))
		o.Store = g.store
		g.Drive, err = Create(ctx, o, me)
	} else {
		g.store, err = log.OpenStore(g.storeOptions())
		g.must(err)
		o.Store = g.store
		g.Drive, err = Open(ctx, o)
	}
	g.must(err)
}

func (g *goldenMaker) shut() {
	g.t.Helper()
	g.must(g.Drive.Close(ctx))
	g.must(g.store.Close())
}

func (g *goldenMaker) control(c log.Control) {
	g.t.Helper()
	_, err := g.store.AppendControl(c)
	g.must(err)
}

// key returns the read key of an epoch.
func (g *goldenMaker) key(epoch uint32) [32]byte {
	if epoch > 0 {
		return goldenRead
	}
	// The store drew it after the keys of the owner, the log and the holder.
	var drawn [4 * 32]byte
	_, _ = rand.NewChaCha8([32]byte{1}).Read(drawn[:])
	return [32]byte(drawn[3*32:])
}

// boxes has the key of an epoch sealed to a device and to a recovery kit.
func (g *goldenMaker) boxes(epoch uint32, key [32]byte) {
	g.t.Helper()
	for _, r := range goldenRecipients {
		k, err := log.NewBoxKey(r.kind, r.seed)
		g.must(err)
		if epoch == 0 {
			g.control(k.Recipient())
		}
		box, err := log.SealBox(g.store.DriveID(), epoch, k.Recipient(), key)
		g.must(err)
		g.control(box)
	}
}

// sync makes a version, and notes what it must show.
func (g *goldenMaker) sync() {
	g.t.Helper()
	g.must(g.Drive.Sync(ctx))
	g.tell()
	g.clock = g.clock.Add(61*time.Second + 7*time.Nanosecond)
}

func (g *goldenMaker) tell() {
	sums := map[string]string{}
	for path, data := range g.files {
		sum := sha256.Sum256(data)
		sums[path] = hex.EncodeToString(sum[:])
	}
	g.told[g.Newest().Seq] = sums
}

// goldenWrite is what is written at once. More would be cut into blocks that
// are sealed side by side, and so appended in any order.
const goldenWrite = bulkRun - 768

// write writes part of a file, making it if need be.
func (g *goldenMaker) write(path string, off int, data []byte) Ino {
	g.t.Helper()
	dir, name := g.split(path)
	a, err := g.Lookup(ctx, dir, name)
	var f *File
	if err == nil {
		f, err = g.Drive.Open(ctx, me, a.Ino, false)
	} else {
		f, a, err = g.Create(ctx, me, dir, name, 0o644)
	}
	g.must(err)
	_, err = f.WriteAt(ctx, data, int64(off))
	g.must(err)
	f.Close()
	g.overwrite(path, off, data)
	return a.Ino
}

// overwrite notes what was written.
func (g *goldenMaker) overwrite(path string, off int, data []byte) {
	b := g.files[path]
	if grow := off + len(data) - len(b); grow > 0 {
		b = append(bytes.Clone(b), make([]byte, grow)...)
	} else {
		b = bytes.Clone(b)
	}
	copy(b[off:], data)
	g.files[path] = b
}

func (g *goldenMaker) split(path string) (Ino, string) {
	g.t.Helper()
	i := strings.LastIndexByte(path, '/')
	dir, err := g.Resolve(ctx, path[:i])
	g.must(err)
	return dir, path[i+1:]
}

func (g *goldenMaker) mkdir(path string, mode uint32) {
	g.t.Helper()
	dir, name := g.split(path)
	_, err := g.Mkdir(ctx, me, dir, name, mode)
	g.must(err)
}

// append has writer 1 append blocks and a version of its own.
func (g *goldenMaker) append(seq uint64, blocks ...[]byte) {
	g.t.Helper()
	o := log.Options{FS: g.disk, Dir: goldenDir + "/log-0001", Writer: 1, Signer: g.second, Keys: g.store.Keys(), Inline: true, Tiny: true}
	open := log.OpenLog
	if seq == 1 {
		open = log.CreateLog
	}
	l, err := open(o)
	g.must(err)
	c := &commit{seq: seq, time: g.clock.UnixNano(), nextIno: firstIno + 1, inodes: 2}
	if seq > 1 {
		c.parent = l.Head().Size
	}
	for _, plain := range blocks {
		stored, err := o.Keys.Seal(nil, seal.Data, plain)
		g.must(err)
		index, err := l.Append(stored)
		g.must(err)
		g.theirs, g.plain = append(g.theirs, log.Ref{Writer: 1, Index: index}), append(g.plain, plain)
	}
	now, at := TimeOf(g.clock), Version{1, seq}
	n := &inode{mode: ModeRegular | 0o640, nlink: 1, uid: 1001, gid: 1001, size: uint64(len(g.plain[0])), mtime: now, ctime: now, btime: now, changed: at, content: seq}
	root := &inode{mode: ModeDir | 0o755, nlink: 2, uid: 1001, gid: 1001, mtime: now, ctime: now, btime: now, changed: at}
	state := new(layer)
	state.put(inodeKey(RootIno), root.encode())
	state.put(direntKey(RootIno, "theirs"), dirent{theirIno, ModeRegular, at}.encode())
	state.put(inodeKey(theirIno), n.encode())
	state.put(parentKey(theirIno, RootIno, "theirs"), []byte{})
	state.put(extentKey(theirIno, 0), extent{ref: g.theirs[0], length: n.size}.encode())
	c.bytes, c.buffer = n.size, state.changes()
	plain, err := c.encode(nil)
	g.must(err)
	stored, err := o.Keys.Seal(nil, seal.Commit, plain)
	g.must(err)
	_, _, err = l.Commit(stored, true)
	g.must(err)
	g.must(l.Close())
}

// theirPart is a stretch of a block of writer 1, and where in a file it is to stand.
type theirPart struct {
	off, block, skip, length int
}

func (g *goldenMaker) extent(p theirPart) extent {
	return extent{off: uint64(p.off), ref: g.theirs[p.block], skip: uint32(p.skip), length: uint64(p.length)}
}

// place has parts of blocks of writer 1 stand in a file of writer 0, as a write
// would its own.
func (g *goldenMaker) place(path string, parts ...theirPart) {
	g.t.Helper()
	ino, err := g.Resolve(ctx, path)
	g.must(err)
	d := g.Drive
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.live().inode(ino)
	g.must(err)
	for _, p := range parts {
		n.sparse = n.sparse || p.off > len(g.files[path])
		g.must(setExtent(d.live(), d.open, ino, g.extent(p)))
		g.overwrite(path, p.off, g.plain[p.block][p.skip:p.skip+p.length])
	}
	size := uint64(len(g.files[path]))
	delta := size - n.size
	d.bytes += delta
	n.size, n.content, n.mtime, n.ctime = size, d.openSeq, d.now(), d.now()
	d.putInode(ino, n)
	d.note(&d.sessions.own, change{what: didWrite, ino: ino, delta: int64(delta), size: size})
	d.mutated()
}

// adoptFile gives writer 1's file a name in the drive of writer 0.
func (g *goldenMaker) adoptFile(path string, parts ...theirPart) {
	g.t.Helper()
	parent, name := g.split(path)
	d := g.Drive
	d.mu.Lock()
	dir, err := d.dir(parent)
	g.must(err)
	now := d.now()
	n := &inode{mode: ModeRegular | 0o640, nlink: 1, uid: 1001, gid: 1001, mtime: now, ctime: now, btime: now}
	d.inodes++
	d.putInode(theirIno, n)
	d.setLink(parent, name, theirIno, n.mode)
	dir.mtime, dir.ctime = now, now
	d.putInode(parent, dir)
	d.note(&d.sessions.own, change{what: didCreate | didLink, ino: theirIno, parent: parent, name: name})
	d.mutated()
	d.mu.Unlock()
	g.place(path, parts...)
	// Its attribute is in a block of writer 1, too.
	w := wire.Writer{B: []byte{xattrBlock}}
	w.Uvarint(uint64(len(g.plain[1])))
	w.Uvarint(uint64(g.theirs[1].Writer))
	w.Uvarint(g.theirs[1].Index)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open.put(xattrKey(theirIno, "user.theirs"), w.B)
	d.note(&d.sessions.own, change{what: didXattr, ino: theirIno})
	d.mutated()
}

// makeGolden makes the store. Equal runs give equal bytes: clock and keys are
// fixed, one goroutine does everything.
func makeGolden(t *testing.T) *goldenMaker {
	cryptotest.SetGlobalRandom(t, 1) // key boxes differ each time otherwise
	g := &goldenMaker{
		t: t, disk: crashfs.New(1), clock: time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC),
		files: map[string][]byte{}, told: map[uint64]map[string]string{}, junk: map[uint64]bool{},
		second: log.NewSigner(goldenSecond),
	}
	g.open()
	g.firstEpoch()
	g.shut()
	g.append(1, g.theirBlocks(100)...)
	g.clock = g.clock.Add(time.Hour)
	g.open()
	g.acrossWriters()
	g.control(&log.EpochBegun{Epoch: 1})
	g.boxes(1, g.key(1))
	g.must(g.store.AddReadKey(1, g.key(1)))
	g.sync()
	g.secondEpoch()
	g.shut()
	g.append(2, g.theirBlocks(200)...)
	g.clock = g.clock.Add(time.Hour)
	g.open()
	g.acrossEpochs()
	g.sweep()
	g.shut()
	return g
}

// theirBlocks returns contents of writer 1: a large block, one for an attribute,
// and small ones.
func (g *goldenMaker) theirBlocks(seed uint64) [][]byte {
	out := [][]byte{random(40_000, seed), random(3000, seed+1)}
	for i := range theirPieces / 2 {
		out = append(out, random(64, seed+2+uint64(i)))
	}
	return out
}

func (g *goldenMaker) firstEpoch() {
	g.tell()
	// What is deleted and swept later, more than half of the first segment.
	for i := range 5 {
		g.junk[g.Newest().Seq+1] = true
		g.write("/junk", i*goldenWrite, random(goldenWrite, uint64(i)))
		g.sync()
	}
	g.must(g.Unlink(ctx, me, RootIno, "junk"))
	delete(g.files, "/junk")

	g.mkdir("/docs", 0o755)
	g.mkdir("/docs/private", 0o700)
	g.write("/docs/small.txt", 0, []byte("hello\n"))
	g.write("/empty", 0, nil)
	g.write("/docs/caf\xe9.txt", 0, []byte("a name that is not UTF-8\n"))
	g.sync()

	text := bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), 500)
	ino := g.write("/docs/text", 0, text)
	_, err := g.Link(ctx, me, ino, RootIno, "link")
	g.must(err)
	g.files["/link"] = g.files["/docs/text"]
	_, err = g.Symlink(ctx, me, RootIno, "symlink", "docs/sm\xffall.txt")
	g.must(err)
	_, err = g.Mknod(ctx, me, RootIno, "fifo", ModeFifo|0o600, 0)
	g.must(err)
	_, err = g.Mknod(ctx, me, RootIno, "device", ModeChar|0o660, 0x103)
	g.must(err)
	g.sync()

	for i := range 4 {
		g.write("/docs/blocks", i*goldenWrite, random(goldenWrite, uint64(10+i)))
		g.sync()
	}
	ino = g.write("/docs/small.txt", 0, []byte("hello again\n"))
	g.must(g.Setxattr(ctx, me, ino, "user.short", []byte("value"), 0))
	g.must(g.Setxattr(ctx, me, ino, "user.long", random(3000, 20), 0))
	g.must(g.Setxattr(ctx, me, ino, "user.none", nil, 0))
	g.write("/deleted", 0, []byte("this will be deleted\n"))
	g.sync()

	ino = g.write("/sparse", 0, random(5000, 21))
	size := uint64(1<<20 + 100_000)
	mtime, mode := Time{-86400, 999_999_999}, uint32(0o4711) // before 1970
	_, err = g.Setattr(ctx, me, ino, SetAttr{Size: &size})
	g.must(err)
	g.overwrite("/sparse", int(size), nil)
	g.write("/sparse", 1<<20, random(5000, 22))
	_, err = g.Setattr(ctx, me, ino, SetAttr{Mtime: &mtime, Mode: &mode})
	g.must(err)
	g.sync()
	g.fill()
}

// fill has the tree be more than a leaf, and one list of changes more than its
// commit has room for.
func (g *goldenMaker) fill() {
	ino := g.write("/docs/attributes", 0, []byte("has many\n"))
	for i := range 12 {
		g.must(g.Setxattr(ctx, me, ino, fmt.Sprintf("user.%02d", i), random(1800, uint64(70+i)), 0))
	}
	g.sync()
	for i := range 80 {
		name := fmt.Sprintf("%0250d", i)
		_, err := g.Link(ctx, me, ino, RootIno, name)
		g.must(err)
		g.must(g.Unlink(ctx, me, RootIno, name))
	}
	g.sync()
	c, err := g.readCommit(log.Ref{Index: g.newest().index})
	g.must(err)
	if c.root.Height < 2 || len(c.more) == 0 {
		g.t.Fatalf("the root is %+v, further changes are in %d", c.root, c.more)
	}
	// Saved as editors do.
	dir, err := g.Resolve(ctx, "/docs")
	g.must(err)
	g.write("/docs/small.txt~", 0, []byte("hello again, saved\n"))
	g.must(g.Rename(ctx, me, dir, "small.txt~", dir, "small.txt", 0))
	g.files["/docs/small.txt"] = g.files["/docs/small.txt~"]
	delete(g.files, "/docs/small.txt~")
	g.sync()
}

// acrossWriters puts blocks of writer 1 into the tree.
func (g *goldenMaker) acrossWriters() {
	g.mkdir("/shared", 0o2775)
	g.adoptFile("/shared/theirs", theirPart{0, 0, 0, 40_000})
	g.write("/shared/mixed", 0, random(30_000, 30))
	g.sync()
	// In the middle of what writer 0 wrote, twice from one block, and beyond.
	g.place("/shared/mixed", theirPart{1000, 0, 100, 5000}, theirPart{6000, 0, 39_000, 1000}, theirPart{29_000, 0, 0, 10_000})
	g.sync()
	g.write("/shared/pieces", 0, nil)
	g.placePieces(2, theirPieces/2)
	g.sync()
}

// placePieces has small blocks follow each other in one file.
func (g *goldenMaker) placePieces(first, n int) {
	var parts []theirPart
	off := len(g.files["/shared/pieces"])
	for i := range n {
		parts = append(parts, theirPart{off + i*64, first + i, 0, 64})
	}
	g.place("/shared/pieces", parts...)
}

func (g *goldenMaker) secondEpoch() {
	g.write("/docs/small.txt", 6, []byte("in epoch 1\n"))
	g.write("/docs/blocks", 60_000, random(20_000, 40))
	g.sync()
	g.must(g.Unlink(ctx, me, RootIno, "deleted"))
	delete(g.files, "/deleted")
	g.sync()
	g.must(g.Tag(ctx, "/docs", "epoch-1"))
	g.tell()
	dir, err := g.Resolve(ctx, "/docs")
	g.must(err)
	g.must(g.Rename(ctx, me, dir, "text", RootIno, "text", 0))
	g.files["/text"] = g.files["/docs/text"]
	delete(g.files, "/docs/text")
	g.sync()
}

// acrossEpochs has blocks of both writers and both epochs in single files.
func (g *goldenMaker) acrossEpochs() {
	second := len(g.theirs) / 2 // the first block of the second epoch
	g.place("/shared/mixed", theirPart{8000, second, 8, 8000}, theirPart{45_000, second, 0, 5000})
	g.placePieces(second+2, theirPieces/2)
	g.must(g.Setxattr(ctx, me, theirIno, "user.ours", random(2500, 50), 0))
	g.sync()
	g.write("/shared/mixed", 10_000, random(2000, 51))
	g.sync()
	g.write("/docs/blocks", 90_000, random(goldenWrite, 60))
	g.sync()
}

// sweep drops what only the versions of the junk needed, and gives the space
// back: a segment is rewritten.
func (g *goldenMaker) sweep() {
	g.clock = g.clock.Add(time.Hour)
	u, err := g.BeginUpkeep(ctx)
	g.must(err)
	defer u.End()
	for i, v := range u.Versions() {
		if !g.junk[v.Version.Seq] {
			u.Keep(i, AllClasses)
		}
	}
	_, err = u.Thin(ctx, time.Unix(0, 0), nil)
	g.must(err)
	w, err := u.Drop(ctx, SweepOptions{Grace: -1})
	g.must(err)
	g.must(g.store.Settle())
	freed, err := u.Reclaim(ctx)
	g.must(err)
	if w.Bytes < 150_000 || freed < 100_000 {
		g.t.Fatalf("%+v was dropped, %d bytes are free", w, freed)
	}
}

// bytes returns the files of the store, by path in it.
func (g *goldenMaker) bytes() map[string][]byte {
	g.t.Helper()
	out := map[string][]byte{}
	for _, f := range g.disk.Files() {
		name := strings.TrimPrefix(f.Path, goldenDir+"/")
		if name == "reserve" {
			continue // zeros, which are kept back again
		}
		b, err := g.disk.ReadFile(f.Path)
		g.must(err)
		out[name] = b
	}
	return out
}

// TestGoldenDriveIsMadeAgain makes the store twice: it is the same, and reads
// as what was written.
func TestGoldenDriveIsMadeAgain(t *testing.T) {
	g := makeGolden(t)
	one, two := g.bytes(), makeGolden(t).bytes()
	for _, name := range slices.Sorted(maps.Keys(one)) {
		if !bytes.Equal(one[name], two[name]) {
			t.Errorf("%s differs", name)
		}
	}
	if len(one) != len(two) {
		t.Errorf("%d files, then %d", len(one), len(two))
	}
	dir := t.TempDir()
	putStore(t, dir, one)
	o := openGolden(t, dir, log.StoreOptions{}, Options{})
	defer o.shut()
	g.compare(o.expectation())
}

// compare checks that a store shows what was written to it.
func (g *goldenMaker) compare(e goldenDrive) {
	g.t.Helper()
	checked := 0
	for _, v := range e.Versions {
		told, ok := g.told[v.Seq]
		if !ok {
			continue
		}
		got := map[string]string{}
		for _, f := range v.Files {
			if f.SHA256 != "" {
				got[unquoted(f.Path)] = f.SHA256
			}
		}
		if !maps.Equal(got, told) {
			g.t.Errorf("version %d shows %v, it is %v", v.Seq, got, told)
		}
		checked++
	}
	if checked < 15 {
		g.t.Errorf("%d versions are there", checked)
	}
	for seq := range g.junk {
		if slices.ContainsFunc(e.Versions, func(v goldenVersion) bool { return v.Seq == seq }) {
			g.t.Errorf("version %d was thinned and is there", seq)
		}
	}
}
