// Package interop holds Hearth's logs against programs that others wrote for
// the same formats: tessera's fsck checks an exported log tile by tile, and
// torchwood's litewitness cosigns its heads and refuses a fork.
//
// It is a module of its own, so that what these programs depend on is not what
// Hearth depends on. It has tests only, imports package log and what that
// needs, and runs on loopback alone.
package interop

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"hearth/log"
	"hearth/log/disk"
	"hearth/log/seal"
)

// seed is the key of every log here.
var seed = [32]byte{1, 2, 3}

// newLog makes a log whose keys, and so whose bytes, are always the same.
func newLog(t *testing.T) (*log.Log, *seal.Keyring) {
	t.Helper()
	keys := seal.NewKeyring()
	keys.Add(0, [32]byte{4, 5, 6})
	l, err := log.CreateLog(log.Options{FS: disk.OS{}, Dir: filepath.Join(t.TempDir(), "log"), Signer: log.NewSigner(seed), Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, keys
}

// grow appends blocks until the log has size entries, the last of them a
// commit, and returns the head. Logs grown with the same words are the same.
func grow(t *testing.T, l *log.Log, keys *seal.Keyring, size uint64, word string) log.Head {
	t.Helper()
	block := func(kind seal.Kind, i uint64) []byte {
		stored, err := keys.Seal(nil, kind, fmt.Appendf(nil, "%s %d", word, i))
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	for i := l.Size(); i < size-1; i++ {
		if _, err := l.Append(block(seal.Data, i)); err != nil {
			t.Fatal(err)
		}
	}
	_, head, err := l.Commit(block(seal.Commit, size-1), true)
	if err != nil {
		t.Fatal(err)
	}
	if head.Size != size {
		t.Fatalf("the head has %d entries, not %d", head.Size, size)
	}
	return head
}

// export writes a log as static files.
func export(t *testing.T, l *log.Log) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if err := l.Export(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// verifierKey is the log's public key in the notation of signed notes.
func verifierKey(t *testing.T, pub ed25519.PublicKey) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(log.Origin(pub), pub)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// check runs tessera's fsck on an exported log.
func check(t *testing.T, dir string, pub ed25519.PublicKey) error {
	t.Helper()
	v, err := note.NewVerifier(verifierKey(t, pub))
	if err != nil {
		t.Fatal(err)
	}
	leaves := func(bundle []byte) ([][]byte, error) {
		var b api.EntryBundle
		if err := b.UnmarshalText(bundle); err != nil {
			return nil, err
		}
		out := make([][]byte, len(b.Entries))
		for i, e := range b.Entries {
			h := tlog.RecordHash(e)
			out[i] = h[:]
		}
		return out, nil
	}
	return fsck.New(v.Name(), v, &client.FileFetcher{Root: dir}, leaves, fsck.Opts{N: 2}).Check(t.Context())
}

// The sizes are those where tiles and bundles begin, end or are partial, and
// where a second row of tiles begins.
func TestFsckPasses(t *testing.T) {
	l, keys := newLog(t)
	pub := l.Verifier().Public()
	for _, size := range []uint64{1, 2, 255, 256, 257, 512, 700, 66_000} {
		if testing.Short() && size > 1000 {
			continue
		}
		head := grow(t, l, keys, size, "block")
		dir := export(t, l)
		if err := check(t, dir, pub); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(checkpoint, head.Note) {
			t.Errorf("size %d: the exported checkpoint is not the head:\n%s", size, checkpoint)
		}
	}
}

// Exporting into a folder that holds an older export leaves a log that passes.
func TestFsckPassesAfterExportingAgain(t *testing.T) {
	l, keys := newLog(t)
	grow(t, l, keys, 300, "block")
	dir := export(t, l)
	grow(t, l, keys, 600, "block")
	if err := l.Export(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := check(t, dir, l.Verifier().Public()); err != nil {
		t.Error(err)
	}
}

// A judge that passes everything is none: one changed byte in any file of the
// export must be found.
func TestFsckFindsDamage(t *testing.T) {
	l, keys := newLog(t)
	grow(t, l, keys, 600, "block")
	dir := export(t, l)
	files := 0
	err := filepath.WalkDir(dir, func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		bad := bytes.Clone(text)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(p, bad, 0o644); err != nil {
			return err
		}
		if check(t, dir, l.Verifier().Public()) == nil {
			t.Errorf("fsck passes with a changed byte in %s", p)
		}
		return os.WriteFile(p, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 7 { // the checkpoint, three tiles and one above, three bundles
		t.Errorf("the export has %d files", files)
	}
	if err := check(t, dir, l.Verifier().Public()); err != nil {
		t.Errorf("repaired: %v", err)
	}
}

// What a signed note, a tile path and a bundle are is defined by others too.
func TestTorchwoodAgrees(t *testing.T) {
	l, keys := newLog(t)
	head := grow(t, l, keys, 600, "block")
	text, _, _ := strings.Cut(string(head.Note), "\n\n")
	c, err := torchwood.ParseCheckpoint(text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Origin != log.Origin(l.Verifier().Public()) || uint64(c.N) != head.Size || c.Hash != tlog.Hash(head.Root) {
		t.Errorf("torchwood reads the checkpoint as %+v", c)
	}
	dir := export(t, l)
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, 0, 600) {
		if _, err := os.Stat(filepath.Join(dir, torchwood.TilePath(tile))); err != nil {
			t.Error(err)
		}
	}
	tree, reader := tlog.Tree{N: int64(head.Size), Hash: tlog.Hash(head.Root)}, tiles(dir)
	for _, index := range []int64{0, 255, 256, 599} {
		hash, err := tlog.TileHashReader(tree, reader).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Descriptor(uint64(index))
		if err != nil {
			t.Fatal(err)
		}
		if hash[0] != tlog.RecordHash(d.Entry()) {
			t.Errorf("entry %d has another hash in the tiles", index)
		}
	}
}

// tiles reads the tiles of an exported log.
type tiles string

func (tiles) Height() int                     { return torchwood.TileHeight }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (dir tiles) ReadTiles(want []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range want {
		text, err := os.ReadFile(filepath.Join(string(dir), torchwood.TilePath(tile)))
		if err != nil {
			return nil, err
		}
		data = append(data, text)
	}
	return data, nil
}

// consistency proves with x/mod and the exported tiles alone that the log of
// the newer head begins with that of the older.
func consistency(t *testing.T, dir string, older, newer log.Head) tlog.TreeProof {
	t.Helper()
	if older.Size == 0 || older.Size == newer.Size {
		return nil
	}
	tree := tlog.Tree{N: int64(newer.Size), Hash: tlog.Hash(newer.Root)}
	proof, err := tlog.ProveTree(tree.N, int64(older.Size), tlog.TileHashReader(tree, tiles(dir)))
	if err != nil {
		t.Fatal(err)
	}
	return proof
}
