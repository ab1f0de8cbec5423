package crashfs

import (
	"bytes"
	"io"
	iofs "io/fs"
	"syscall"

	"hearth/log/disk"
)

// maxUnsynced bounds the unsynced bytes remembered for one file. Beyond it the
// kernel's own writeback is taken to have run: the older half is on the disk.
const maxUnsynced = 32 << 20

// fileOp is a change of a file that is not synced.
type fileOp struct {
	kind     fileOpKind
	off, len int64 // a write's or free's range
	img      []byte
	size     int64 // what a truncate sets, what a write or allocation grows to; -1: the size stays
}

type fileOpKind uint8

const (
	// fileWrite: the sectors of [off, off+len), whole, as the page cache held
	// them after the write. So a sector on the disk is always one that the
	// cache once held. A nil img is zeros.
	fileWrite fileOpKind = iota
	fileTruncate
	fileAllocate
	filePunch // whole blocks
)

type handle struct {
	c        *FS
	n        *inode
	path     string
	readOnly bool
	closed   bool
}

var _ disk.File = (*handle)(nil)

func (h *handle) op(k Kind, off, n int64) Op {
	return Op{Kind: k, Path: h.path, Off: off, Len: n}
}

func (h *handle) check(write bool) error {
	switch {
	case h.closed:
		return iofs.ErrClosed
	case write && h.readOnly:
		return syscall.EBADF
	}
	return nil
}

func (h *handle) ReadAt(p []byte, off int64) (n int, err error) {
	err = h.c.do(h.op(OpReadAt, off, int64(len(p))), func(limit int64) error {
		if err := h.check(false); err != nil {
			return err
		}
		if off < 0 {
			return syscall.EINVAL
		}
		if off >= h.n.cur.size {
			if len(p) == 0 {
				return nil
			}
			return io.EOF
		}
		n = int(min(limit, h.n.cur.size-off))
		h.n.cur.read(p[:n], off)
		if int64(n) < limit {
			return io.EOF
		}
		return nil
	}, nil)
	return n, err
}

func (h *handle) WriteAt(p []byte, off int64) (n int, err error) {
	op := h.op(OpWriteAt, off, int64(len(p)))
	err = h.c.do(op, func(limit int64) error {
		if err := h.check(true); err != nil {
			return err
		}
		if off < 0 {
			return syscall.EINVAL
		}
		room := h.c.room(h.n.cur, off, limit)
		h.c.write(h.n, p[:room], off)
		n = int(room)
		if room < limit {
			return syscall.ENOSPC
		}
		return nil
	}, nil)
	if err != nil && n == len(p) {
		n = 0 // it happened, and says it did not
	}
	return n, err
}

// room returns how many of the n bytes from off can be written.
func (c *FS) room(f *content, off, n int64) int64 {
	left := c.total - c.used
	for b := off / BlockSize; b*BlockSize < off+n; b++ {
		if f.allocated(b) {
			continue
		}
		if left--; left < 0 {
			return max(0, b*BlockSize-off)
		}
	}
	return n
}

// write changes the page cache and remembers the write as unsynced.
func (c *FS) write(n *inode, p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	c.change(n, func(f *content) { f.write(p, off) })
	n.remember(off, int64(len(p)), off+int64(len(p)))
}

// remember adds the sectors of [off, off+len), as they now are, to what is
// unsynced.
func (n *inode) remember(off, length, size int64) {
	first := off / SectorSize * SectorSize
	last := (off + length + SectorSize - 1) / SectorSize * SectorSize
	op := fileOp{kind: fileWrite, off: first, len: last - first, size: size}
	img := make([]byte, op.len)
	n.cur.read(img, first)
	if !zero(img) {
		op.img = img
		n.opBytes += len(img)
	}
	n.ops = append(n.ops, op)
	if n.opBytes > maxUnsynced {
		n.writeback()
	}
}

func zero(p []byte) bool {
	for len(p) > BlockSize {
		if !bytes.Equal(p[:BlockSize], zeroBlock[:]) {
			return false
		}
		p = p[BlockSize:]
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}

// writeback makes the older half of the unsynced operations durable.
func (n *inode) writeback() {
	half := len(n.ops) / 2
	n.dur = replay(n.dur, n.ops[:half], keepAll{})
	n.ops = append([]fileOp(nil), n.ops[half:]...)
	n.opBytes = 0
	for _, op := range n.ops {
		n.opBytes += len(op.img)
	}
}

func (h *handle) Truncate(size int64) error {
	return h.c.do(h.op(OpTruncate, size, 0), func(int64) error {
		if err := h.check(true); err != nil {
			return err
		}
		if size < 0 {
			return syscall.EINVAL
		}
		h.c.change(h.n, func(f *content) { f.truncate(size) })
		h.n.ops = append(h.n.ops, fileOp{kind: fileTruncate, size: size})
		return nil
	}, nil)
}

func (h *handle) Allocate(off, n int64) error {
	return h.c.do(h.op(OpAllocate, off, n), func(limit int64) error {
		if err := h.check(true); err != nil {
			return err
		}
		if off < 0 {
			return syscall.EINVAL
		}
		if limit <= 0 {
			return nil
		}
		if holes := h.n.cur.missing(off, limit); holes > 0 && holes > h.c.total-h.c.used {
			return syscall.ENOSPC
		}
		h.c.change(h.n, func(f *content) {
			f.allocate(off, limit)
			f.size = max(f.size, off+limit)
		})
		h.n.ops = append(h.n.ops, fileOp{kind: fileAllocate, off: off, len: limit, size: off + limit})
		return nil
	}, nil)
}

func (h *handle) PunchHole(off, n int64) error {
	return h.c.do(h.op(OpPunchHole, off, n), func(limit int64) error {
		if err := h.check(true); err != nil {
			return err
		}
		if off < 0 {
			return syscall.EINVAL
		}
		if limit > 0 {
			h.c.punch(h.n, off, off+limit)
		}
		return nil
	}, nil)
}

// punch zeroes the ends of [off, end) that are parts of blocks, as a write
// would, and frees the blocks between.
func (c *FS) punch(n *inode, off, end int64) {
	first := (off + BlockSize - 1) / BlockSize
	last := end / BlockSize
	edge := func(from, to int64) {
		if from >= to || !n.cur.allocated(from/BlockSize) {
			return
		}
		c.change(n, func(f *content) { f.blank(from, to-from) })
		n.remember(from, to-from, -1)
	}
	if first > last { // within one block
		edge(off, end)
		return
	}
	edge(off, first*BlockSize)
	edge(last*BlockSize, end)
	if first < last {
		c.change(n, func(f *content) { f.free(first, last) })
		n.ops = append(n.ops, fileOp{kind: filePunch, off: first * BlockSize, len: (last - first) * BlockSize, size: -1})
	}
}

// WriteBack does nothing: without a Datasync any write may be lost or not.
func (h *handle) WriteBack() {}

func (h *handle) Datasync() error {
	return h.c.do(h.op(OpDatasync, 0, 0), func(int64) error {
		if err := h.check(false); err != nil {
			return err
		}
		h.n.sync()
		return nil
	}, func() { h.c.failSync(h.n) })
}

// sync makes a file's contents durable.
func (n *inode) sync() {
	if len(n.ops) == 0 {
		return
	}
	if n.stale {
		n.dur = replay(n.dur, n.ops, keepAll{})
	} else {
		n.dur = n.cur.clone()
	}
	n.ops, n.opBytes = nil, 0
}

// failSync loses what is unsynced, but for what happens to reach the disk.
func (c *FS) failSync(n *inode) {
	if len(n.ops) == 0 {
		return
	}
	found := replay(n.dur, n.ops, newLoss(c.rng, Mixed))
	if c.used-n.cur.blocks+found.blocks > c.total {
		// What it gave up has been taken; no disk loses that.
		found = replay(n.dur, n.ops, keepAll{})
	}
	n.dur = found
	n.ops, n.opBytes = nil, 0
	if c.onFailure == KeepCache {
		n.stale = true
		return
	}
	c.change(n, func(*content) { n.cur = n.dur.clone() })
}

func (h *handle) Size() (size int64, err error) {
	err = h.c.do(h.op(OpSize, 0, 0), func(int64) error {
		size = h.n.cur.size
		return h.check(false)
	}, nil)
	return size, err
}

func (h *handle) Close() error {
	return h.c.do(h.op(OpClose, 0, 0), func(int64) error {
		if err := h.check(false); err != nil {
			return err
		}
		h.closed = true
		h.n.handles--
		h.c.release(h.n)
		return nil
	}, nil)
}
