package fs

import (
	"encoding/binary"

	"hearth/log"
)

// Keys of the tree. Every record of one inode stands together, so that opening
// a small file reads one leaf: the inode, its attributes, the way back up, its
// extents, and for a directory its entries in name order. Inode number 0 is
// the drive itself.
//
//	ino u64 | kindInode
//	ino u64 | kindXattr  | name
//	ino u64 | kindParent | parent u64 | name
//	ino u64 | kindExtent | offset u64
//	ino u64 | kindDirent | name
//	0   u64 | kindVersion | writer u16 | seq u64
//	0   u64 | kindTag     | name
const (
	kindInode   = 1
	kindXattr   = 2
	kindParent  = 3
	kindExtent  = 4
	kindDirent  = 5
	kindVersion = 6
	kindTag     = 7

	keyPrefix = 9 // ino and kind
)

func appendKey(b []byte, ino Ino, kind byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(ino))
	return append(b, kind)
}

func inodeKey(ino Ino) []byte { return appendKey(make([]byte, 0, keyPrefix), ino, kindInode) }

func nameKey(ino Ino, kind byte, name string) []byte {
	b := appendKey(make([]byte, 0, keyPrefix+len(name)), ino, kind)
	return append(b, name...)
}

func direntKey(parent Ino, name string) []byte { return nameKey(parent, kindDirent, name) }
func xattrKey(ino Ino, name string) []byte     { return nameKey(ino, kindXattr, name) }
func tagKey(name string) []byte                { return nameKey(0, kindTag, name) }

func parentKey(ino, parent Ino, name string) []byte {
	b := appendKey(make([]byte, 0, keyPrefix+8+len(name)), ino, kindParent)
	b = binary.BigEndian.AppendUint64(b, uint64(parent))
	return append(b, name...)
}

func extentKey(ino Ino, off uint64) []byte {
	b := appendKey(make([]byte, 0, keyPrefix+8), ino, kindExtent)
	return binary.BigEndian.AppendUint64(b, off)
}

func versionKey(v Version) []byte {
	b := appendKey(make([]byte, 0, keyPrefix+10), 0, kindVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(v.Writer))
	return binary.BigEndian.AppendUint64(b, v.Seq)
}

// kindRange returns the bounds of all keys of one kind of an inode.
func kindRange(ino Ino, kind byte) (lo, hi []byte) {
	return appendKey(nil, ino, kind), appendKey(nil, ino, kind+1)
}

// inoRange returns the bounds of all keys of an inode.
func inoRange(ino Ino) (lo, hi []byte) {
	return binary.BigEndian.AppendUint64(nil, uint64(ino)), binary.BigEndian.AppendUint64(nil, uint64(ino)+1)
}

func keyIno(k []byte) Ino      { return Ino(binary.BigEndian.Uint64(k)) }
func keyKind(k []byte) byte    { return k[8] }
func keyName(k []byte) string  { return string(k[keyPrefix:]) }
func keyOffset(k []byte) int64 { return int64(binary.BigEndian.Uint64(k[keyPrefix:])) }
func keyParent(k []byte) (Ino, string) {
	return Ino(binary.BigEndian.Uint64(k[keyPrefix:])), string(k[keyPrefix+8:])
}

func keyVersion(k []byte) Version {
	return Version{log.Writer(binary.BigEndian.Uint16(k[keyPrefix:])), binary.BigEndian.Uint64(k[keyPrefix+2:])}
}

// validKey reports whether a key has the shape of its kind: what comes out of
// a stored page or a commit passes here before it is parsed.
func validKey(k []byte) bool {
	if len(k) < keyPrefix {
		return false
	}
	n := len(k) - keyPrefix
	switch keyKind(k) {
	case kindInode:
		return n == 0
	case kindXattr, kindDirent, kindTag:
		return n > 0 && n <= MaxName
	case kindParent:
		return n > 8 && n <= 8+MaxName
	case kindExtent:
		return n == 8
	case kindVersion:
		return n == 10
	}
	return false
}
