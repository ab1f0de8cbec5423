package fs

import (
	"errors"
	"fmt"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
	"hearth/log/wire"
)

// maxBlock is the most plaintext a block carries.
const maxBlock = seal.MaxPlain

// Reason says what made a commit.
type Reason uint8

// Reasons. The numbers are part of the format.
const (
	ReasonWork     Reason = 0 // what programs did
	ReasonUndo     Reason = 1
	ReasonRedo     Reason = 2
	ReasonRestore  Reason = 3
	ReasonTag      Reason = 4
	ReasonUpkeep   Reason = 5 // retention and coalescing: never shown as a change
	ReasonPurge    Reason = 6
	ReasonGenesis  Reason = 7
	reasonsDefined        = 8
)

// commit is the content of a commit block: the root of one version.
//
//	format u8 = 1
//	seq, parent index + 1 (0: none)   uvarint
//	time                              varint, ns since 1970, hybrid logical clock
//	reason u8
//	undoes                            uvarint, change id or 0
//	heads                             count; writer uvarint, seq uvarint (version vector)
//	root                              height u8; writer uvarint, index uvarint
//	next inode, inodes, bytes         uvarint
//	buffer                            count; shared uvarint, rest bytes, value + 1 length or 0 (deleted), value
//	actors                            count; id uvarint, since varint (ns before time), uid uvarint, program
//	changes                           count; actor uvarint, what u16, ino, parent uvarint, name, size delta varint, size uvarint
//	more                              count; block index uvarint: further changes, in blocks of their own
type commit struct {
	seq     uint64
	parent  uint64 // log index of the parent commit + 1
	time    int64
	reason  Reason
	undoes  uint64
	heads   []Version
	root    tree.Root
	nextIno uint64
	inodes  uint64
	bytes   uint64
	buffer  []tree.Change
	actors  []actor
	changes []change
	more    []uint64
}

const commitFormat = 1

// ErrNewer is a commit of a later format than this program knows.
var ErrNewer = errors.New("made by a newer version of hearth")

// actor is who made changes: one run of one program, "untar", as people think
// of it. Its id is the sequence number it began in and an ordinal.
type actor struct {
	id      uint64
	since   int64 // when it began, ns since 1970
	uid     uint32
	program string
}

// What a change did, as bits: one entry may carry several.
type what uint16

const (
	didCreate what = 1 << iota // made the inode
	didWrite                   // its contents
	didAttr                    // mode, owner, times
	didXattr
	didLink     // gave it the name (parent, name)
	didUnlink   // took the name away
	didRemove   // that was its last name
	didClose    // a program finished writing: the version people mean
	didReplace  // the name passed to this inode from another
	didTag      // a tag was set or dropped (name)
	whatDefined = 1<<10 - 1
)

// change is one thing an actor did to one inode, or one name of it.
type change struct {
	actor  int // index into actors
	what   what
	ino    Ino
	parent Ino    // of a name that came or went
	name   string // likewise
	delta  int64  // bytes of size gained
	size   uint64 // after it, of didWrite
}

const (
	maxProgram = 64
	maxHeads   = 1 << 16
)

// inlineChanges is how many bytes of changes stay in the commit block itself;
// the rest goes to blocks of its own, so that opening a version stays cheap.
const inlineChanges = 16 << 10

func encodeChange(w *wire.Writer, c change) {
	w.Uvarint(uint64(c.actor))
	w.U16(uint16(c.what))
	w.Uvarint(uint64(c.ino))
	w.Uvarint(uint64(c.parent))
	w.String(c.name)
	w.Varint(c.delta)
	w.Uvarint(c.size)
}

func decodeChange(r *wire.Reader, actors int) change {
	c := change{actor: int(r.Uvarint() & 0x7fffffff), what: what(r.U16()), ino: Ino(r.Uvarint()), parent: Ino(r.Uvarint()), name: r.String(MaxName), delta: r.Varint(), size: r.Uvarint()}
	if c.actor >= actors {
		r.Fail("actor %d of %d", c.actor, actors)
	}
	if c.what&^whatDefined != 0 {
		r.Fail("change %#x", c.what)
	}
	return c
}

// encode returns the commit block's plaintext. Changes beyond inlineChanges
// are handed to spill, in groups that fit a block, which stores each and
// returns its index.
func (c *commit) encode(spill func(plain []byte) (uint64, error)) ([]byte, error) {
	w := wire.Writer{B: make([]byte, 0, 4096)}
	w.U8(commitFormat)
	w.Uvarint(c.seq)
	w.Uvarint(c.parent)
	w.Varint(c.time)
	w.U8(uint8(c.reason))
	w.Uvarint(c.undoes)
	w.Uvarint(uint64(len(c.heads)))
	for _, h := range c.heads {
		putVersion(&w, h)
	}
	w.U8(c.root.Height)
	w.Uvarint(uint64(c.root.Ref.Writer))
	w.Uvarint(c.root.Ref.Index)
	w.Uvarint(c.nextIno)
	w.Uvarint(c.inodes)
	w.Uvarint(c.bytes)
	encodeBuffer(&w, c.buffer)
	w.Uvarint(uint64(len(c.actors)))
	for _, a := range c.actors {
		w.Uvarint(a.id)
		w.Varint(c.time - a.since)
		w.Uvarint(uint64(a.uid))
		w.String(a.program)
	}

	// Changes inline as far as they fit, in blocks of their own beyond.
	inline := wire.Writer{}
	n := 0
	for n < len(c.changes) && len(inline.B) < inlineChanges {
		encodeChange(&inline, c.changes[n])
		n++
	}
	w.Uvarint(uint64(n))
	w.Raw(inline.B)
	var more []uint64
	for n < len(c.changes) {
		group := wire.Writer{B: []byte{commitFormat}}
		for n < len(c.changes) && len(group.B) < maxBlock-1024 {
			encodeChange(&group, c.changes[n])
			n++
		}
		index, err := spill(group.B)
		if err != nil {
			return nil, err
		}
		more = append(more, index)
	}
	w.Uvarint(uint64(len(more)))
	for _, index := range more {
		w.Uvarint(index)
	}
	if len(w.B) > maxBlock {
		return nil, fmt.Errorf("commit %d takes %d bytes, %d at most", c.seq, len(w.B), maxBlock)
	}
	return w.B, nil
}

func encodeBuffer(w *wire.Writer, changes []tree.Change) {
	w.Uvarint(uint64(len(changes)))
	var last []byte
	for _, ch := range changes {
		shared := 0
		for shared < len(last) && shared < len(ch.Key) && last[shared] == ch.Key[shared] {
			shared++
		}
		w.Uvarint(uint64(shared))
		w.Bytes(ch.Key[shared:])
		if ch.Delete {
			w.Uvarint(0)
		} else {
			w.Uvarint(uint64(len(ch.Value)) + 1)
			w.Raw(ch.Value)
		}
		last = ch.Key
	}
}

func decodeBuffer(r *wire.Reader) []tree.Change {
	n := r.Count(3)
	out := make([]tree.Change, 0, n)
	var last []byte
	for range n {
		shared := r.Uvarint()
		rest := r.Bytes(1024)
		if shared > uint64(len(last)) {
			r.Fail("shares %d bytes of %d", shared, len(last))
		}
		if r.Err() != nil {
			return nil
		}
		key := append(append(make([]byte, 0, int(shared)+len(rest)), last[:shared]...), rest...)
		if !validKey(key) || string(key) <= string(last) {
			r.Fail("key %x after %x", key, last)
		}
		ch := tree.Change{Key: key}
		if size := r.Uvarint(); size == 0 {
			ch.Delete = true
		} else if size-1 > uint64(r.Len()) {
			r.Fail("value of %d bytes", size-1)
		} else {
			ch.Value = r.Raw(int(size - 1))
		}
		if r.Err() != nil {
			return nil
		}
		out = append(out, ch)
		last = key
	}
	return out
}

// decodeCommit parses a commit block's plaintext. Changes in further blocks
// are not read: see moreChanges.
func decodeCommit(b []byte) (*commit, error) {
	r := wire.NewReader(b)
	if f := r.U8(); r.Err() == nil && f != commitFormat {
		if f > commitFormat {
			return nil, fmt.Errorf("commit of format %d, this program knows %d: %w", f, commitFormat, ErrNewer)
		}
		r.Fail("commit format %d", f)
	}
	c := &commit{seq: r.Uvarint(), parent: r.Uvarint(), time: r.Varint(), reason: Reason(r.U8()), undoes: r.Uvarint()}
	if c.reason >= reasonsDefined {
		r.Fail("reason %d", c.reason)
	}
	if n := r.Count(2); n > maxHeads {
		r.Fail("%d heads", n)
	} else {
		for range n {
			c.heads = append(c.heads, getVersion(r))
		}
	}
	c.root.Height = r.U8()
	w := r.Uvarint()
	if w > 0xffff {
		r.Fail("writer %d", w)
	}
	c.root.Ref = log.Ref{Writer: log.Writer(w), Index: r.Uvarint()}
	c.nextIno, c.inodes, c.bytes = r.Uvarint(), r.Uvarint(), r.Uvarint()
	c.buffer = decodeBuffer(r)
	for range r.Count(4) {
		a := actor{id: r.Uvarint(), since: c.time - r.Varint(), uid: getU32(r), program: r.String(maxProgram)}
		c.actors = append(c.actors, a)
	}
	for range r.Count(8) {
		c.changes = append(c.changes, decodeChange(r, len(c.actors)))
	}
	for range r.Count(1) {
		c.more = append(c.more, r.Uvarint())
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("commit block: %w: %w", ErrDamaged, err)
	}
	return c, nil
}

// decodeMore parses a block of further changes.
func decodeMore(b []byte, actors int) ([]change, error) {
	r := wire.NewReader(b)
	if f := r.U8(); r.Err() == nil && f != commitFormat {
		r.Fail("format %d", f)
	}
	var out []change
	for r.Err() == nil && r.Len() > 0 {
		out = append(out, decodeChange(r, actors))
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("change list: %w: %w", ErrDamaged, err)
	}
	return out, nil
}
