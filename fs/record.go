package fs

import (
	"fmt"

	"hearth/log"
	"hearth/log/wire"
)

// inode is the record of one inode.
//
//	flags u8 (1: rdev, 2: symlink, 4: lineage, 8: sparse)
//	mode, nlink, uid, gid, size   uvarint
//	mtime, ctime, btime           sec varint, nsec uvarint
//	changed, before               writer uvarint, seq uvarint
//	content                       seq uvarint
//	[rdev uvarint] [target bytes] [from ino uvarint, at writer uvarint, seq uvarint]
type inode struct {
	mode, nlink, uid, gid uint32
	size                  uint64
	mtime, ctime, btime   Time
	changed               Version // last changed this record
	before                Version // changed it before that; Seq 0: none
	content               uint64  // sequence number that last changed the contents
	rdev                  uint32
	target                string  // of a symlink
	from                  Ino     // lineage: this inode continues that document
	fromAt                Version // where the document was last seen under from
	sparse                bool    // there may be holes: st_blocks has to be counted
}

const (
	inodeRdev    = 1
	inodeSymlink = 2
	inodeLineage = 4
	inodeSparse  = 8
)

func (n *inode) isDir() bool     { return n.mode&ModeType == ModeDir }
func (n *inode) isRegular() bool { return n.mode&ModeType == ModeRegular }

func putTime(w *wire.Writer, t Time) { w.Varint(t.Sec); w.Uvarint(uint64(t.Nsec)) }

func getTime(r *wire.Reader) Time {
	t := Time{Sec: r.Varint()}
	ns := r.Uvarint()
	if ns > 999_999_999 {
		r.Fail("nanoseconds %d", ns)
	}
	t.Nsec = uint32(ns)
	return t
}

func putVersion(w *wire.Writer, v Version) { w.Uvarint(uint64(v.Writer)); w.Uvarint(v.Seq) }

func getVersion(r *wire.Reader) Version {
	wr := r.Uvarint()
	if wr > 0xffff {
		r.Fail("writer %d", wr)
	}
	return Version{log.Writer(wr), r.Uvarint()}
}

func getU32(r *wire.Reader) uint32 {
	v := r.Uvarint()
	if v > 0xffffffff {
		r.Fail("%d does not fit 32 bits", v)
	}
	return uint32(v)
}

func (n *inode) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 64+len(n.target))}
	var flags uint8
	if n.rdev != 0 {
		flags |= inodeRdev
	}
	if n.target != "" {
		flags |= inodeSymlink
	}
	if n.from != 0 {
		flags |= inodeLineage
	}
	if n.sparse {
		flags |= inodeSparse
	}
	w.U8(flags)
	for _, v := range [...]uint32{n.mode, n.nlink, n.uid, n.gid} {
		w.Uvarint(uint64(v))
	}
	w.Uvarint(n.size)
	putTime(&w, n.mtime)
	putTime(&w, n.ctime)
	putTime(&w, n.btime)
	putVersion(&w, n.changed)
	putVersion(&w, n.before)
	w.Uvarint(n.content)
	if n.rdev != 0 {
		w.Uvarint(uint64(n.rdev))
	}
	if n.target != "" {
		w.String(n.target)
	}
	if n.from != 0 {
		w.Uvarint(uint64(n.from))
		putVersion(&w, n.fromAt)
	}
	return w.B
}

func decodeInode(b []byte) (*inode, error) {
	r := wire.NewReader(b)
	n := new(inode)
	flags := r.U8()
	if flags&^(inodeRdev|inodeSymlink|inodeLineage|inodeSparse) != 0 {
		r.Fail("inode flags %#x", flags)
	}
	n.sparse = flags&inodeSparse != 0
	n.mode, n.nlink, n.uid, n.gid = getU32(r), getU32(r), getU32(r), getU32(r)
	n.size = r.Uvarint()
	if n.size > MaxSize {
		r.Fail("size %d", n.size)
	}
	n.mtime, n.ctime, n.btime = getTime(r), getTime(r), getTime(r)
	n.changed, n.before = getVersion(r), getVersion(r)
	n.content = r.Uvarint()
	if flags&inodeRdev != 0 {
		n.rdev = getU32(r)
	}
	if flags&inodeSymlink != 0 {
		n.target = r.String(MaxSymlink)
	}
	if flags&inodeLineage != 0 {
		n.from = Ino(r.Uvarint())
		n.fromAt = getVersion(r)
	}
	if flags&inodeRdev != 0 && n.rdev == 0 || flags&inodeSymlink != 0 && n.target == "" || flags&inodeLineage != 0 && n.from == 0 {
		r.Fail("inode flags %#x name what is not there", flags)
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("inode record: %w: %w", ErrDamaged, err)
	}
	return n, nil
}

func (n *inode) attr(ino Ino) Attr {
	a := Attr{
		Ino: ino, Mode: n.mode, Nlink: n.nlink, Uid: n.uid, Gid: n.gid, Rdev: n.rdev,
		Size: n.size, Mtime: n.mtime, Ctime: n.ctime, Btime: n.btime, Atime: n.mtime,
		Version: n.changed.Seq,
	}
	a.Blocks = (n.size + 511) / 512
	return a
}

// dirent is the record of one name: ino uvarint, type u8 (mode >> 12),
// version that made it.
type dirent struct {
	ino     Ino
	typ     uint32
	changed Version
}

func (e dirent) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 16)}
	w.Uvarint(uint64(e.ino))
	w.U8(uint8(e.typ >> 12))
	putVersion(&w, e.changed)
	return w.B
}

func decodeDirent(b []byte) (dirent, error) {
	r := wire.NewReader(b)
	e := dirent{ino: Ino(r.Uvarint()), typ: uint32(r.U8()) << 12, changed: getVersion(r)}
	if err := r.Done(); err != nil {
		return e, fmt.Errorf("directory entry: %w: %w", ErrDamaged, err)
	}
	return e, nil
}

// extent says that length bytes of a file from off stand in a block from skip.
// Record: writer, index, skip, length, all uvarint; off is in the key.
type extent struct {
	off    uint64
	ref    log.Ref
	skip   uint32
	length uint64
}

// spillWriter marks extents whose data is outside the log: of inodes that
// have no name. They are never committed.
const spillWriter log.Writer = 0xffff

func (e extent) end() uint64 { return e.off + e.length }

func (e extent) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 12)}
	w.Uvarint(uint64(e.ref.Writer))
	w.Uvarint(e.ref.Index)
	w.Uvarint(uint64(e.skip))
	w.Uvarint(e.length)
	return w.B
}

func decodeExtent(off uint64, b []byte) (extent, error) {
	r := wire.NewReader(b)
	e := extent{off: off}
	wr := r.Uvarint()
	if wr > 0xffff {
		r.Fail("writer %d", wr)
	}
	e.ref = log.Ref{Writer: log.Writer(wr), Index: r.Uvarint()}
	e.skip = getU32(r)
	e.length = r.Uvarint()
	if e.length == 0 || uint64(e.skip)+e.length > maxBlock || off+e.length > MaxSize {
		r.Fail("extent of %d bytes at %d, %d into its block", e.length, off, e.skip)
	}
	if err := r.Done(); err != nil {
		return e, fmt.Errorf("extent: %w: %w", ErrDamaged, err)
	}
	return e, nil
}

// slice returns the part of e that covers [lo, hi), which must overlap it.
func (e extent) slice(lo, hi uint64) extent {
	if lo > e.off {
		e.skip += uint32(lo - e.off)
		e.length -= lo - e.off
		e.off = lo
	}
	if e.end() > hi {
		e.length = hi - e.off
	}
	return e
}

// versionRecord says where a version's commit block is and when it was made.
// Record: index uvarint, time varint (ns since 1970), flags u8.
type versionRecord struct {
	index  uint64
	time   int64
	hidden bool // not a human change: maintenance
}

func (v versionRecord) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 16)}
	w.Uvarint(v.index)
	w.Varint(v.time)
	var f uint8
	if v.hidden {
		f = 1
	}
	w.U8(f)
	return w.B
}

func decodeVersionRecord(b []byte) (versionRecord, error) {
	r := wire.NewReader(b)
	v := versionRecord{index: r.Uvarint(), time: r.Varint()}
	v.hidden = r.U8()&1 != 0
	if err := r.Done(); err != nil {
		return v, fmt.Errorf("version record: %w: %w", ErrDamaged, err)
	}
	return v, nil
}
