package fs

import (
	"bytes"
	"errors"
	"testing"

	"hearth/fs/tree"
	"hearth/log"
)

// FuzzCommit decodes hostile commit blocks, and encodes what was accepted
// again: it must decode to the same.
func FuzzCommit(f *testing.F) {
	c := commit{
		seq: 3, parent: 7, time: 1 << 60, nextIno: 20, inodes: 2, bytes: 5,
		root:    tree.Root{Ref: log.Ref{Writer: 1, Index: 9}, Height: 2},
		heads:   []Version{{1, 5}},
		buffer:  []tree.Change{{Key: inodeKey(1), Value: []byte("x")}, {Key: inodeKey(2), Delete: true}},
		actors:  []actor{{id: 768, since: 1<<60 - 5, uid: 1000, program: "tar"}},
		changes: []change{{what: didCreate | didLink, ino: 16, parent: 1, name: "a", delta: 3, size: 3}},
	}
	plain, err := c.encode(func([]byte) (uint64, error) { return 0, errors.New("none is due") })
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{commitFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeCommit(b)
		if err != nil {
			if !isAny(err, ErrDamaged, ErrNewer) {
				t.Fatalf("the error has no kind: %v", err)
			}
			return
		}
		if len(got.changes) > 100 || len(got.buffer) > 1000 {
			return // beyond what stays in one block
		}
		again, err := got.encode(func([]byte) (uint64, error) { return 0, errors.New("too much") })
		if err != nil {
			return
		}
		twice, err := decodeCommit(again)
		if err != nil {
			t.Fatalf("what was accepted does not decode again: %v", err)
		}
		third, err := twice.encode(func([]byte) (uint64, error) { return 0, errors.New("too much") })
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("encoding is not stable: %v", err)
		}
	})
}

// FuzzRecords decodes hostile records of every kind, and blocks of changes.
func FuzzRecords(f *testing.F) {
	n := inode{mode: ModeSymlink | 0o777, nlink: 1, size: 3, target: "abc", changed: Version{0, 4}, from: 9, fromAt: Version{0, 3}}
	f.Add(n.encode())
	f.Add(dirent{ino: 16, typ: ModeDir, changed: Version{0, 2}}.encode())
	f.Add(extent{ref: log.Ref{Index: 8}, skip: 10, length: 20}.encode())
	f.Add(versionRecord{index: 5, time: 1 << 60, hidden: true}.encode())
	f.Add([]byte{xattrBlock, 200, 1, 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(what string, err error) {
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: the error has no kind: %v", what, err)
			}
		}
		if n, err := decodeInode(b); err == nil {
			m, err := decodeInode(n.encode())
			if err != nil || *m != *n {
				t.Fatalf("inode %+v becomes %+v, %v", n, m, err)
			}
		} else {
			check("inode", err)
		}
		_, err := decodeDirent(b)
		check("dirent", err)
		if e, err := decodeExtent(0, b); err == nil {
			if e.length == 0 || uint64(e.skip)+e.length > maxBlock {
				t.Fatalf("extent %+v", e)
			}
		} else {
			check("extent", err)
		}
		_, err = decodeVersionRecord(b)
		check("version", err)
		_, err = decodeXattr(b)
		check("attribute", err)
		_, err = decodeMore(b, 3)
		check("changes", err)
		if validKey(b) {
			switch keyKind(b) {
			case kindParent:
				keyParent(b)
			case kindExtent:
				keyOffset(b)
			case kindVersion:
				keyVersion(b)
			default:
				keyName(b)
			}
		}
	})
}
